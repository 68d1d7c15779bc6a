//! MongoDB servers of a few lines: one that answers every question with one error, two that are a replica set.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Document, doc};

/// Answers the greeting of a driver and everything else with this error, as MongoDB does (OP_MSG and OP_QUERY in MongoDB's
/// manual, "Wire Protocol"; numbers and names of its error codes). FerretDB with SQLite knows no users.
pub fn refusing(code: i32, name: &'static str, message: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || while refuse(&stream, code, name, message).is_ok() {});
        }
    });
    address
}

pub fn wrong_password() -> SocketAddr {
    refusing(18, "AuthenticationFailed", "Authentication failed.")
}

fn refuse(stream: &TcpStream, code: i32, name: &str, message: &str) -> std::io::Result<()> {
    answer(stream, |command| {
        if is_greeting(command) {
            let alone = doc! { "ismaster": true, "isWritablePrimary": true, "readOnly": false };
            greeting().into_iter().chain(alone).collect()
        } else {
            doc! { "ok": 0, "code": code, "codeName": name, "errmsg": message }
        }
    })
}

fn is_greeting(command: &str) -> bool {
    ["hello", "isMaster", "ismaster"].contains(&command)
}

fn greeting() -> Document {
    doc! { "ok": 1, "helloOk": true, "minWireVersion": 0, "maxWireVersion": 21, "maxBsonObjectSize": 16 << 20,
    "maxMessageSizeBytes": 48_000_000, "maxWriteBatchSize": 100_000 }
}

/// Reads a command and answers it by its name.
fn answer(mut stream: &TcpStream, say: impl FnOnce(&str) -> Document) -> std::io::Result<()> {
    let mut head = [0; 16];
    stream.read_exact(&mut head)?;
    let number = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap());
    let mut body = vec![0; number(0) as usize - 16];
    stream.read_exact(&mut body)?;
    const QUERY: u32 = 2004;
    let is_query = number(12) == QUERY;
    // A query has flags, a name and two numbers before its document, a message has flags and the kind of its section.
    let at = if is_query { 4 + body[4..].iter().position(|byte| *byte == 0).unwrap() + 1 + 8 } else { 5 };
    let length = u32::from_le_bytes(body[at..at + 4].try_into().unwrap()) as usize;
    let command = Document::from_reader(&body[at..at + length]).unwrap();
    let said = say(command.keys().next().unwrap()).to_vec().unwrap();
    let (code, before): (u32, &[u8]) = if is_query {
        (1, &[8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0])
    } else {
        (2013, &[0, 0, 0, 0, 0])
    };
    let length = (16 + before.len() + said.len()) as u32;
    let answer: Vec<u8> = [length, 1, number(4), code].iter().flat_map(|number| number.to_le_bytes()).collect();
    stream.write_all(&[&answer, before, &said].concat())
}

/// Two members of a replica set, the first the primary, with one document; they note which commands they are sent.
pub struct ReplicaSet {
    pub uri: String,
    told: [Arc<Mutex<Vec<String>>>; 2],
}

impl ReplicaSet {
    pub fn commands(&self, member: usize) -> Vec<String> {
        self.told[member].lock().unwrap().clone()
    }
}

pub fn replica_set(document: Document) -> ReplicaSet {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let hosts: Vec<String> = listeners.iter().map(|listener| listener.local_addr().unwrap().to_string()).collect();
    let told = [(); 2].map(|()| Arc::new(Mutex::new(Vec::new())));
    for (member, listener) in listeners.into_iter().enumerate() {
        let (hosts, told, document) = (hosts.clone(), Arc::clone(&told[member]), document.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (hosts, told, document) = (hosts.clone(), Arc::clone(&told), document.clone());
                std::thread::spawn(move || while serve(&stream, member, &hosts, &told, &document).is_ok() {});
            }
        });
    }
    ReplicaSet { uri: format!("mongodb://{}/?replicaSet=set", hosts.join(",")), told }
}

fn serve(
    stream: &TcpStream,
    member: usize,
    hosts: &[String],
    told: &Mutex<Vec<String>>,
    document: &Document,
) -> std::io::Result<()> {
    answer(stream, |command| {
        if is_greeting(command) {
            let is_primary = member == 0;
            let set = doc! { "ismaster": is_primary, "isWritablePrimary": is_primary, "secondary": !is_primary,
            "setName": "set", "setVersion": 1, "hosts": hosts, "me": &hosts[member], "primary": &hosts[0],
            "electionId": ObjectId::from_bytes([1; 12]) };
            return greeting().into_iter().chain(set).collect();
        }
        told.lock().unwrap().push(command.to_owned());
        let first = if command == "find" { vec![document.clone()] } else { Vec::new() };
        let cursor = doc! { "id": 0_i64, "ns": "analytics.events", "firstBatch": first };
        doc! { "ok": 1, "n": 0, "nModified": 0, "cursor": cursor }
    })
}

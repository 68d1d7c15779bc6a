//! A MongoDB server that answers every question with one error.
#![allow(dead_code, reason = "every test crate uses its own part of this")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use mongodb::bson::doc;

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

fn refuse(mut stream: &TcpStream, code: i32, name: &str, message: &str) -> std::io::Result<()> {
    let mut head = [0; 16];
    stream.read_exact(&mut head)?;
    let number = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap());
    let mut body = vec![0; number(0) as usize - 16];
    stream.read_exact(&mut body)?;
    let greets = ["hello", "isMaster", "ismaster"].iter().any(|name| {
        let name = [b"\x10", name.as_bytes(), b"\0"].concat();
        let wide = [b"\x01", &name[1..]].concat();
        body.windows(name.len()).any(|window| window == name || window == wide)
    });
    let said = if greets {
        doc! { "ok": 1, "helloOk": true, "ismaster": true, "isWritablePrimary": true, "minWireVersion": 0,
        "maxWireVersion": 21, "maxBsonObjectSize": 16 << 20, "maxMessageSizeBytes": 48_000_000,
        "maxWriteBatchSize": 100_000, "readOnly": false }
    } else {
        doc! { "ok": 0, "code": code, "codeName": name, "errmsg": message }
    };
    let said = said.to_vec().unwrap();
    const QUERY: u32 = 2004;
    let (code, before): (u32, &[u8]) = if number(12) == QUERY {
        (1, &[8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0])
    } else {
        (2013, &[0, 0, 0, 0, 0])
    };
    let length = (16 + before.len() + said.len()) as u32;
    let answer: Vec<u8> = [length, 1, number(4), code].iter().flat_map(|number| number.to_le_bytes()).collect();
    stream.write_all(&[&answer, before, &said].concat())
}

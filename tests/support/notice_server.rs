//! A server that takes notices and heartbeats, and answers as it is told.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What came in.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Request {
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value)
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// An answer: a status, headers and a body.
type Answer = (u16, Vec<(&'static str, String)>, String);

const WORDS: &str = "the server's words";

pub struct Server {
    pub url: String,
    pub got: Arc<Mutex<Vec<Request>>>,
    answers: Arc<Mutex<VecDeque<Answer>>>,
}

impl Server {
    pub fn start() -> Self {
        let got: Arc<Mutex<Vec<Request>>> = Arc::default();
        let answers: Arc<Mutex<VecDeque<Answer>>> = Arc::default();
        let (sink, script) = (got.clone(), answers.clone());
        let server = rouille::Server::new("127.0.0.1:0", move |request| {
            let mut body = String::new();
            request.data().unwrap().read_to_string(&mut body).unwrap();
            let headers = request.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            let path = request.raw_url().to_owned();
            sink.lock().unwrap().push(Request { method: request.method().to_owned(), path, headers, body });
            let next = script.lock().unwrap().pop_front();
            let (status, headers, body) = next.unwrap_or_else(|| (200, Vec::new(), WORDS.to_owned()));
            let mut response = rouille::Response::text(body).with_status_code(status);
            for (name, value) in headers {
                response = response.with_additional_header(name, value);
            }
            response
        })
        .unwrap();
        let url = format!("http://{}", server.server_addr());
        std::thread::spawn(move || server.run());
        Self { url, got, answers }
    }

    /// How the next request is answered, after those that were said before.
    pub fn answers(&self, status: u16, headers: &[(&'static str, &str)]) {
        self.says(status, headers, WORDS);
    }

    /// The same with a body.
    pub fn says(&self, status: u16, headers: &[(&'static str, &str)], body: &str) {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        self.answers.lock().unwrap().push_back((status, headers, body.to_owned()));
    }

    /// Forgets what was said and not answered yet.
    pub fn forget(&self) {
        self.answers.lock().unwrap().clear();
    }

    /// What came since the last call.
    pub fn got(&self) -> Vec<Request> {
        std::mem::take(&mut *self.got.lock().unwrap())
    }
}

/// A server that answers each connection with these bytes, whatever it is asked, and closes it; where there are none, it says
/// nothing and holds the connection as long as the client does.
pub fn raw(answer: &'static [u8]) -> String {
    serve(move |client| {
        let mut some = [0; 64 << 10];
        // The whole request, as far as it comes in one piece: who closes with something unread resets.
        let _ = client.read(&mut some);
        if answer.is_empty() {
            while client.read(&mut some).is_ok_and(|length| length > 0) {}
        } else {
            let _ = client.write_all(answer);
        }
    })
}

/// A server that says this before it is asked anything, and closes.
pub fn greets(greeting: &'static [u8]) -> String {
    serve(move |client| {
        let _ = client.write_all(greeting);
    })
}

fn serve(serve: impl Fn(&mut TcpStream) + Copy + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            std::thread::spawn(move || serve(&mut client));
        }
    });
    url
}

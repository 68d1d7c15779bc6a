//! A server that takes notices and heartbeats, and answers as it is told.
#![allow(dead_code, reason = "every test crate uses its own part of this")]

use std::collections::VecDeque;
use std::io::Read as _;
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

/// An answer: a status and headers.
type Answer = (u16, Vec<(&'static str, String)>);

pub struct Server {
    pub url: String,
    got: Arc<Mutex<Vec<Request>>>,
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
            let (status, headers) = script.lock().unwrap().pop_front().unwrap_or((200, Vec::new()));
            let mut response = rouille::Response::text("the server's words").with_status_code(status);
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
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        self.answers.lock().unwrap().push_back((status, headers));
    }

    /// What came since the last call.
    pub fn got(&self) -> Vec<Request> {
        std::mem::take(&mut *self.got.lock().unwrap())
    }
}

//! A web server that answers as it is told, well or badly.

use rustls::ServerConfig;
use rustls::ServerConnection;
use rustls::StreamOwned;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::thread::JoinHandle;

/// What a server does with a request that it has read.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// Answers with this, and points elsewhere if it says so.
    Status(u16),
    /// Closes the connection.
    Close,
    /// Answers something else than HTTP.
    Garbage,
    /// Answers nothing until the other side has gone.
    Silence,
}

/// What a client asked.
#[derive(Debug)]
pub(crate) struct Request {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

trait Both: Read + Write {}

impl<T: Read + Write> Both for T {}

/// A server on this machine.
pub(crate) struct Server {
    address: SocketAddr,
    scheme: &'static str,
    requests: mpsc::Receiver<Request>,
    thread: JoinHandle<()>,
}

impl Server {
    /// Which answers so many requests, one after the other, and then none.
    pub(crate) fn answering(answers: Vec<Answer>) -> Server {
        Server::begin(answers, None)
    }

    /// Like `answering`, through TLS.
    pub(crate) fn answering_in_secret(answers: Vec<Answer>, tls: ServerConfig) -> Server {
        Server::begin(answers, Some(Arc::new(tls)))
    }

    fn begin(answers: Vec<Answer>, tls: Option<Arc<ServerConfig>>) -> Server {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (send, requests) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut answers = answers.into_iter();
            loop {
                let (stream, _) = listener.accept().unwrap();
                let mut stream: Box<dyn Both> = match &tls {
                    None => Box::new(stream),
                    Some(tls) => {
                        let connection = ServerConnection::new(tls.clone()).unwrap();
                        Box::new(StreamOwned::new(connection, stream))
                    }
                };
                let Some(request) = read(&mut stream) else {
                    return;
                };
                let answer = answers.next();
                send.send(request).unwrap();
                match answer {
                    Some(answer) => self::answer(stream, &answer),
                    None => drop(stream),
                }
            }
        });
        Server {
            address,
            scheme,
            requests,
            thread,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Returns all that was asked.
    pub(crate) fn finish(self) -> Vec<Request> {
        // A connection without a request ends it.
        let _ = TcpStream::connect(self.address);
        self.thread.join().unwrap();
        self.requests.iter().collect()
    }
}

/// Reads a request, unless there is none.
fn read(stream: impl Read) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|len| *len > 0)?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_string(), words.next()?.to_string());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.push((name.to_string(), value.to_string()));
    }
    let mut request = Request {
        method,
        path,
        headers,
        body: String::new(),
    };
    let len: u64 = request.header("content-length")?.parse().ok()?;
    reader.take(len).read_to_string(&mut request.body).ok()?;
    Some(request)
}

fn answer(mut stream: Box<dyn Both>, answer: &Answer) {
    // The other side may have gone.
    let _ = match answer {
        Answer::Status(status) => {
            let text = format!(
                "HTTP/1.1 {status} X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
            );
            stream.write_all(text.as_bytes())
        }
        Answer::Close => Ok(()),
        Answer::Garbage => stream.write_all(b"SSH-2.0-OpenSSH\r\n\r\n"),
        Answer::Silence => stream.read(&mut [0]).map(drop),
    };
}

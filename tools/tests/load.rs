//! `duva-load` against small servers that behave, and that misbehave in one way each.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

type Arguments = Vec<Vec<u8>>;

/// Starts a server that answers every request of every connection with what `answer` says; `None` closes the
/// connection. Returns its port. It ends with the test's process.
fn serve(answer: impl FnMut(&Arguments) -> Option<Vec<u8>> + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = Arc::new(Mutex::new(answer));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, answer) = (stream.unwrap(), Arc::clone(&answer));
            stream.set_nodelay(true).unwrap();
            thread::spawn(move || {
                let mut output = stream.try_clone().unwrap();
                let mut input = BufReader::new(stream);
                while let Some(arguments) = read_request(&mut input) {
                    let Some(reply) = (answer.lock().unwrap())(&arguments) else { return };
                    if output.write_all(&reply).is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

fn read_request(input: &mut BufReader<TcpStream>) -> Option<Arguments> {
    let count = read_number(input, '*')?;
    (0..count)
        .map(|_| {
            let mut bulk = vec![0; read_number(input, '$')? + 2];
            input.read_exact(&mut bulk).ok()?;
            bulk.truncate(bulk.len() - 2);
            Some(bulk)
        })
        .collect()
}

fn read_number(input: &mut BufReader<TcpStream>, marker: char) -> Option<usize> {
    let mut line = String::new();
    input.read_line(&mut line).ok()?;
    line.strip_prefix(marker)?.trim_end().parse().ok()
}

/// A map behind GET, SET and INCR; nothing expires.
fn store() -> impl FnMut(&Arguments) -> Option<Vec<u8>> + Send + 'static {
    let mut values: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
    move |arguments| {
        Some(match &*arguments[0] {
            b"PING" => b"+PONG\r\n".to_vec(),
            b"SET" => {
                values.insert(arguments[1].clone(), arguments[2].clone());
                b"+OK\r\n".to_vec()
            }
            b"GET" => match values.get(&arguments[1]) {
                Some(value) => [format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat(),
                None => b"$-1\r\n".to_vec(),
            },
            b"EXPIREAT" if arguments[2] == b"2000000000" => {
                format!(":{}\r\n", u8::from(values.contains_key(&arguments[1]))).into_bytes()
            }
            b"INCR" => {
                let value = values.entry(arguments[1].clone()).or_insert_with(|| b"0".to_vec());
                let next = std::str::from_utf8(value).unwrap().parse::<u64>().unwrap() + 1;
                *value = next.to_string().into_bytes();
                format!(":{next}\r\n").into_bytes()
            }
            other => panic!("an unexpected command {}", String::from_utf8_lossy(other)),
        })
    }
}

fn load(port: u16, options: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_duva-load"))
        .args(["--json", "--port", &port.to_string()])
        .args(options.split_whitespace())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Runs to the end without an error and returns what was printed.
fn load_well(port: u16, options: &str) -> String {
    let output = load(port, options);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{options}: {text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("\"errors\":0,"), "{options}: {text}");
    text
}

/// The number after `"name":`.
fn field(json: &str, name: &str) -> f64 {
    let name = format!("\"{name}\":");
    let rest = &json[json.find(&name).unwrap_or_else(|| panic!("{name} is not in {json}")) + name.len()..];
    rest[..rest.find([',', '}']).unwrap()].parse().unwrap()
}

#[test]
fn what_fill_sets_every_kind_of_load_finds() {
    let port = serve(store());
    let filled = load_well(port, "--fill 1003 --connections 7 --pipeline 5 --value-bytes 100");
    assert_eq!(field(&filled, "requests"), 1003.0);
    for options in [
        "--op get --connections 1",
        "--op get --connections 3 --pipeline 16",
        "--op get --sequential --connections 2 --rate 100000 --pipeline 8",
        "--op mixed --reads 0.5 --connections 4 --pipeline 3",
        "--op set --connections 1",
        "--op incr --connections 2 --pipeline 2",
        "--op expire --expire-at 2000000000 --sequential --connections 2 --pipeline 2",
    ] {
        let done = load_well(port, &format!("{options} --keys 1003 --requests 500 --value-bytes 100"));
        assert_eq!((field(&done, "requests"), field(&done, "missing")), (500.0, 0.0), "{options}: {done}");
        assert!(field(&done, "p50") > 0.0 && field(&done, "p50") <= field(&done, "max"), "{done}");
    }
    let beyond = load_well(port, "--op get --sequential --keys 2006 --requests 2006 --value-bytes 100");
    assert_eq!(field(&beyond, "missing"), 1003.0);
}

#[test]
fn values_larger_than_any_buffer_pass() {
    let port = serve(store());
    load_well(port, "--fill 4 --connections 2 --pipeline 2 --value-bytes 3000000");
    let read = load_well(port, "--keys 4 --requests 8 --connections 2 --pipeline 2 --value-bytes 3000000");
    assert_eq!(field(&read, "missing"), 0.0);
}

#[test]
fn error_replies_are_counted_and_fail_the_run() {
    let (mut inner, mut count) = (store(), 0);
    let port = serve(move |arguments| {
        count += 1;
        if count % 10 == 0 { Some(b"-ERR the tenth\r\n".to_vec()) } else { inner(arguments) }
    });
    for options in ["--connections 1", "--connections 2 --pipeline 5", "--connections 2 --rate 100000"] {
        let output = load(port, &format!("--op set --requests 100 {options}"));
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!((output.status.code(), field(&text, "errors")), (Some(1), 10.0), "{options}: {text}");
        assert!(text.contains("\"first_error\":\"ERR the tenth\""), "{text}");
    }
}

#[test]
fn a_value_of_another_key_is_an_error() {
    let mut inner = store();
    let port = serve(move |arguments| {
        let mut arguments = arguments.clone();
        if arguments[0] == b"GET" {
            arguments[1] = b"key:000000000000".to_vec();
        }
        inner(&arguments)
    });
    load_well(port, "--fill 10");
    let output = load(port, "--keys 10 --sequential --requests 10 --connections 1");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!((output.status.code(), field(&text, "errors")), (Some(1), 9.0), "{text}");
    load_well(port, "--keys 10 --requests 10 --any-value");
}

#[test]
fn a_server_that_goes_away_or_answers_too_much_fails_the_run() {
    for (reply, told) in [
        (None, "closed a connection"),
        (Some(b"+OK\r\n+OK\r\n".to_vec()), "more replies than there were requests"),
        (Some(b"*1\r\n+OK\r\n".to_vec()), "begins with *1"),
    ] {
        let port = serve(move |_| reply.clone());
        for options in ["--connections 1", "--connections 3", "--connections 3 --rate 1000"] {
            let output = load(port, &format!("--op set --requests 100 {options}"));
            let told_us = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{options}");
            assert!(told_us.contains(told), "{options}: {told_us}");
        }
    }
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let output = load(closed, "--requests 1");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("connecting"));
}

/// All requests are due within the first stall, so all of them waited for most of it, although all but one were sent
/// after it.
#[test]
fn an_open_loop_charges_a_stall_to_every_request_that_was_due() {
    let stall = Duration::from_millis(60);
    let (mut inner, mut stalled) = (store(), false);
    let port = serve(move |arguments| {
        if !std::mem::replace(&mut stalled, true) {
            let (_sender, receiver) = mpsc::channel::<()>();
            let _ = receiver.recv_timeout(stall);
        }
        inner(arguments)
    });
    let done = load_well(port, "--op set --connections 1 --rate 10000 --requests 100");
    let last_due_ns = 99.0 * 1e9 / 10_000.0;
    assert!(field(&done, "min") >= stall.as_nanos() as f64 - last_due_ns, "{done}");
}

#[test]
fn idle_connections_are_held_until_standard_input_ends() {
    let port = serve(store());
    let mut held = Command::new(env!("CARGO_BIN_EXE_duva-load"))
        .args(["--json", "--idle", "20", "--port", &port.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut announced = String::new();
    BufReader::new(held.stdout.take().unwrap()).read_line(&mut announced).unwrap();
    assert_eq!(announced, "{\"idle_connections\":20}\n");
    assert!(held.try_wait().unwrap().is_none(), "the connections are not held");
    drop(held.stdin.take());
    assert!(held.wait().unwrap().success());
}

#[test]
fn a_load_goes_on_until_standard_input_ends() {
    for options in ["--connections 1", "--connections 3 --pipeline 2", "--connections 3 --rate 100000"] {
        let (sender, receiver) = mpsc::channel();
        let (mut inner, mut count) = (store(), 0);
        let port = serve(move |arguments| {
            count += 1;
            if count == 200 {
                sender.send(()).unwrap();
            }
            inner(arguments)
        });
        let mut client = Command::new(env!("CARGO_BIN_EXE_duva-load"))
            .args(["--json", "--op", "set", "--until-input-ends", "--port", &port.to_string()])
            .args(options.split_whitespace())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        receiver.recv().unwrap();
        assert!(client.try_wait().unwrap().is_none(), "{options}: it ended by itself");
        drop(client.stdin.take());
        let output = client.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{options}: {text}");
        assert!(field(&text, "requests") >= 200.0, "{options}: {text}");
    }
}

#[test]
fn wrong_options_are_named_with_exit_code_2() {
    let output = load(1, "--pipeline none");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("--pipeline"));
}

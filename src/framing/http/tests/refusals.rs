//! Requests that two readers could read in two ways, by the names under which the tricks are known, and others that are
//! none.

use super::*;

const BAD: &str = "400 Bad Request";

/// A request with these fields and whatever is behind them is refused, for this reason.
fn fields(fields: &str, why: &str) {
    all(format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}").as_bytes(), why);
}

fn all(bytes: &[u8], why: &str) {
    let text = String::from_utf8_lossy(bytes);
    let (status, said) = refused(bytes);
    assert_eq!(status, BAD, "{text:?}");
    assert!(said.contains(why), "{text:?}: {said}");
}

#[test]
fn two_lengths() {
    let both = "both Transfer-Encoding and Content-Length";
    // CL.TE, and TE.CL.
    fields("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG", both);
    fields("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\nGPOST", both);
    fields("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n", both);
    fields("Transfer-Encoding: identity\r\nContent-Length: 4\r\n\r\nabcd", both);
    // CL.CL.
    fields("Content-Length: 8\r\nContent-Length: 7\r\n\r\n", "differ");
    fields("Content-Length: 5\r\nX: y\r\ncontent-length: 0\r\n\r\n", "differ");
    // In HTTP/1.0.
    all(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "in HTTP/1.0");
    all(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", both);
}

#[test]
fn a_transfer_encoding_that_some_reader_overlooks() {
    for value in [
        "xchunked",
        "chunkedx",
        "chunked, identity",
        "identity, chunked",
        "chunked, chunked",
        "gzip",
        "identity",
        "chunked;q=1",
        "\"chunked\"",
        "'chunked'",
        "chunked,",
        ",chunked",
        "cow, chunked",
        "gzip, chunked",
        "chunk ed",
        "chun\u{212a}ed",
        "\u{a0}chunked",
        "",
    ] {
        fields(&format!("Transfer-Encoding: {value}\r\n\r\n0\r\n\r\n"), "other than chunked");
    }
    for second in ["chunked", "identity", "x", ""] {
        let two =
            format!("Transfer-Encoding: chunked\r\nTransfer-encoding: {second}\r\n\r\n0\r\n\r\n");
        fields(&two, "several Transfer-Encoding");
        let two =
            format!("Transfer-Encoding: {second}\r\nTransfer-encoding: chunked\r\n\r\n0\r\n\r\n");
        fields(&two, "several Transfer-Encoding");
    }
    for line in [
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        " Transfer-Encoding: chunked",
        "\tTransfer-Encoding: chunked",
        "Transfer-Encoding:\r\n chunked",
        "Transfer-Encoding\r\n : chunked",
        "Transfer Encoding: chunked",
        "X: X\r\n\tTransfer-Encoding: chunked",
        ": chunked",
        "chunked",
        "Transfer-Encoding\u{e4}: chunked",
        "(Transfer-Encoding): chunked",
    ] {
        fields(&format!("{line}\r\n\r\n0\r\n\r\n"), "invalid header name");
    }
    fields("X: X\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "LF alone");
    fields("X: X\rTransfer-Encoding: chunked\r\n\r\n", "a CR that");
    fields("Transfer-Encoding:\u{b}chunked\r\n\r\n", "control character");
    fields("Transfer-Encoding: chunked\0\r\n\r\n", "control character");
    fields("Transfer-Encoding: chunked\u{7f}\r\n\r\n", "control character");
    // What blanks may be around it are no trick (RFC 9112, 5.1).
    for value in ["chunked", "\tchunked", " \t chunked \t", "CHUNKED"] {
        request(&format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:{value}\r\n\r\n0\r\n\r\n"
        ));
    }
}

#[test]
fn a_content_length_that_some_reader_takes_for_another() {
    for value in [
        "+5",
        "-5",
        "-0",
        "5, 5",
        "5,5",
        "5,",
        "0x5",
        "5x",
        "5 5",
        "5.0",
        "5e0",
        "\"5\"",
        "5;",
        "",
        "\u{665}",
        "9223372036854775808",
        "18446744073709551616",
        "18446744073709551621",
        "99999999999999999999999999",
        "\u{a0}5",
    ] {
        fields(&format!("Content-Length: {value}\r\n\r\nabcde"), "no decimal number");
    }
    fields("Content-Length : 5\r\n\r\nabcde", "header name");
    fields("Content-Length: 5\r\n 5\r\n\r\nabcde", "header name");
    fields("Content-Length:\u{b}5\r\n\r\nabcde", "control character");
    // What blanks may be around it are no trick, and all that is said twice is the same.
    for value in ["5", " 5 ", "\t5", "005", "5\r\nContent-Length: 5"] {
        request(&format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length:{value}\r\n\r\nabcde"));
    }
    request("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 0\r\n\r\n");
    for body in ["Content-Length: 1\r\n\r\nx", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"] {
        all(format!("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n{body}").as_bytes(), "CONNECT with a body");
    }
}

#[test]
fn a_chunk_that_ends_elsewhere_for_another_reader() {
    let body = |body: &str, why: &str| {
        fields(&format!("Transfer-Encoding: chunked\r\n\r\n{body}"), why);
        fields(&format!("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n{body}"), why);
    };
    for size in [
        "-5",
        "+5",
        "",
        " 5",
        "g",
        "\u{ff15}",
        "FFFFFFFFFFFFFFFF",
        "10000000000000005",
        "8000000000000000",
        "ffffffffffffffffffffffffffffffff",
        "0000000000000005",
        ";a",
    ] {
        body(&format!("{size}\r\nabcde\r\n0\r\n\r\n"), "no hexadecimal number");
    }
    for extension in [
        "x5",
        "_0",
        " ",
        "\t",
        " x",
        ";",
        "; ",
        ";;",
        ";a=",
        ";a= ",
        ";=a",
        ";a=b c",
        ";a=\"",
        ";a=\"b",
        ";a=\"\\\"",
        ";a=\"b\"c",
        ";a b",
        "h",
        ",",
        "\u{7f}",
        ";a=\"\u{0}\"",
        ";a=\r",
        "\r",
        ";a\r;b",
        ";a=\"\\\u{1}\"",
        ";\u{e4}",
    ] {
        body(&format!("5{extension}\r\nabcde\r\n0\r\n\r\n"), "no extension");
    }
    for extension in [
        ";a",
        " ;a",
        "\t; a",
        ";a;b",
        ";a=b",
        ";a = b ;c",
        ";a=\"\"",
        ";a=\"b;c=\\\" \u{e4}\";d",
        ";!#$=\"\\\\\"",
    ] {
        let text = format!("5{extension}\r\nabcde\r\n0{extension}\r\n\r\n");
        request(&format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{text}"));
    }
    let alone = "LF alone";
    body("5\nabcde\r\n0\r\n\r\n", alone);
    body("5;ext=\"\n\"\r\nabcde\r\n0\r\n\r\n", alone);
    body("2;\nxx\r\n4c\r\n0\r\n\r\n", alone);
    body("5\r\nabcde\r\n0\n\r\n", alone);
    body("5\r\nabcde\r\n0\r\n\n", alone);
    body("5\r\nabcde\r\n0\r\nA: b\n\r\n", alone);
    body("5;ext=\"\r\n\"\r\nabcde\r\n", "no extension");
    let longer = "longer than its size";
    for behind in ["0\r\n\r\n", "\n0\r\n\r\n", "\r0\r\n\r\n", "X\r\n0\r\n\r\n", "\0\r\n"] {
        body(&format!("5\r\nabcde{behind}"), longer);
    }
    body(&format!("5;{}\r\nabcde\r\n", "a".repeat(4096)), "too long");
}

#[test]
fn a_trailer_that_belongs_before_the_body() {
    let trailer = |trailer: &str| {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        format!("{head}0\r\nX: y\r\n{trailer}\r\n\r\n")
    };
    for name in [
        "Content-Length",
        "transfer-encoding",
        "HOST",
        "Authorization",
        "Cookie",
        "X-Forwarded-For",
        "x-forwarded-",
        "Forwarded",
        "Expect",
    ] {
        all(trailer(&format!("{name}: 1")).as_bytes(), "belongs before");
    }
    for line in ["A : b", " a: b", "a", ": b", "\ta: b", "a\u{e4}: b", "a b: c"] {
        all(trailer(line).as_bytes(), "has no name");
    }
    for line in ["A: \0", "A: b\rc", "A: b\u{7f}", "A: \u{1b}[0m", "A:b\r"] {
        all(trailer(line).as_bytes(), "control character in a trailer");
    }
    for line in ["A:", "A: \u{e4}\t", "Grpc-Status: 0", "X-Forwarded: 1"] {
        request(&trailer(line));
    }
    let many = "A: b\r\n".repeat(128) + "A: b";
    assert_eq!(refused(trailer(&many).as_bytes()).1, "the trailers are too long");
}

#[test]
fn a_host_that_is_none_or_several() {
    all(b"GET / HTTP/1.1\r\n\r\n", "no Host");
    all(b"GET / HTTP/1.1\r\nX-Host: a\r\n\r\n", "no Host");
    for version in ["1.1", "1.0"] {
        for second in ["a", "b", ""] {
            let text = format!("GET / HTTP/{version}\r\nHost: a\r\nX: y\r\nhost: {second}\r\n\r\n");
            all(text.as_bytes(), "several Host");
        }
        for host in
            ["a b", "a,b", "a/b", "a@b", "a\tb", "\u{e4}", "a?b", "a#b", "\"a\"", "<a>", "a\\b"]
        {
            let text = format!("GET / HTTP/{version}\r\nHost: {host}\r\n\r\n");
            all(text.as_bytes(), "no host");
        }
    }
    for host in ["", "a", "a.example:80", "[::1]:80", "127.0.0.1", "a_b", "%61", " a "] {
        request(&format!("GET / HTTP/1.1\r\nHost:{host}\r\n\r\n"));
    }
    request("GET / HTTP/1.0\r\n\r\n");
}

#[test]
fn a_connection_that_hides_a_field_from_the_backend() {
    for name in [
        "Host",
        "content-length",
        "Transfer-Encoding",
        "AUTHORIZATION",
        "Cookie",
        "X-Forwarded-For",
        "x-forwarded-proto",
        "Forwarded",
        "Proxy-Authorization",
        "X-Real-IP",
        "Expect",
    ] {
        for list in [
            name.to_owned(),
            format!("close, {name}"),
            format!("a,\t{name} ,b"),
            format!(",{name}"),
        ] {
            fields(&format!("Connection: {list}\r\n\r\n"), "for everybody");
            fields(
                &format!("Connection: close\r\nX: y\r\nconnection: {list}\r\n\r\n"),
                "for everybody",
            );
        }
    }
    fields(&format!("Connection: {}\r\n\r\n", "a,".repeat(40)), "too many");
}

#[test]
fn what_is_no_request_at_all() {
    for (bytes, why) in [
        ("GET /\r\n\r\n", "invalid"),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", "version"),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", "version"),
        ("GET / http/1.1\r\nHost: a\r\n\r\n", "version"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "version"),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", "invalid token"),
        ("GET /  HTTP/1.1\r\nHost: a\r\n\r\n", "version"),
        ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", "invalid"),
        ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", "version"),
        (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", "invalid token"),
        ("G\u{e4}T / HTTP/1.1\r\nHost: a\r\n\r\n", "invalid token"),
        ("GET /\tHTTP/1.1\r\nHost: a\r\n\r\n", "invalid"),
        ("HTTP/1.1 200 OK\r\n\r\n", "invalid"),
        ("*2\r\n$4\r\nLLEN\r\n\r\n", "invalid"),
        ("GET / HTTP/1.1\nHost: a\n\n", "LF alone"),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", "LF alone"),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", "LF alone"),
        ("GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", "a CR that"),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\r\n", "a CR that"),
        ("GET / HTTP/1.1\r\nHost: a\r\nA: b\0c\r\n\r\n", "control"),
        ("\u{16}\u{3}\u{1}\u{2}\0", "control"),
        ("\0", "control"),
    ] {
        all(bytes.as_bytes(), why);
    }
    all(b"G\x80T / HTTP/1.1\r\nHost: a\r\n\r\n", "invalid");
    all(b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", "invalid");
}

#[test]
fn a_control_character_is_found_wherever_it_stands_and_no_other_is_taken_for_one() {
    for byte in 0..=u8::MAX {
        for place in 0..20 {
            let mut value = [b' '; 20];
            value[place] = byte;
            // What is above blank and below it, on both sides.
            for (other, near) in value.iter_mut().zip([b'a', 0xff, 0x80, b'~'].iter().cycle()) {
                *other = if *other == b' ' { *near } else { *other };
            }
            let request = [b"GET / HTTP/1.1\r\nHost: a\r\nA:b", &value[..], b"c\r\n\r\n"].concat();
            let read = Http::default().requests().next(&request);
            assert_eq!(
                read.is_err(),
                byte.is_ascii_control() && byte != b'\t',
                "{byte} at {place}"
            );
        }
    }
}

#[test]
fn a_head_has_a_limit() {
    let http = Http { max_head: 60, max_fields: 3 };
    let check = |http: &Http, text: &str, why: Option<&str>| {
        let read =
            every_split(text.as_bytes(), |bytes, lengths| splits::requests(http, bytes, lengths));
        assert_eq!(read.error.as_ref().map(|error| error.why.as_str()), why, "{text:?}");
        if let Some(error) = read.error {
            assert!(error.answer.starts_with(b"HTTP/1.1 431 Request Header Fields Too Large\r\n"));
        }
    };
    let head = |fields: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let pad =
        |length: usize| head(&format!("A: {}\r\n", "b".repeat(length - head("A: \r\n").len())));
    assert_eq!(pad(60).len(), 60);
    check(&http, &pad(60), None);
    check(&http, &pad(61), Some("the head is too long"));
    check(&http, &pad(60)[..59], None);
    check(&http, &"a".repeat(59), None);
    check(&http, &"a".repeat(60), Some("the head is too long"));
    check(&http, &head("A: b\r\nC: d\r\n"), None);
    check(&http, &head("A: b\r\nC: d\r\nE: f\r\n"), Some("the head has too many fields"));
    let (status, why) =
        refused(("GET / HTTP/1.1\r\nHost: a\r\n".to_owned() + &"A:\r\n".repeat(128)).as_bytes());
    assert_eq!(
        (status.as_str(), why.as_str()),
        ("431 Request Header Fields Too Large", "the head has too many fields")
    );
    // The same for the trailers.
    let chunked = "PUT / HTTP/1.1\r\nHost:\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n";
    let trailers = |length: usize| format!("{chunked}A: {}\r\nB:\r\n\r\n", "b".repeat(length - 11));
    let http = Http { max_head: 56, ..http };
    let long = Some("the trailers are too long");
    check(&http, &trailers(56), None);
    check(&http, &trailers(57), long);
    check(&http, &format!("{chunked}{}", "a".repeat(55)), None);
    check(&http, &format!("{chunked}{}", "a".repeat(56)), long);
    check(&http, &format!("{chunked}{}\r\n", "A:\r\n".repeat(3)), None);
    check(&http, &format!("{chunked}{}\r\n", "A:\r\n".repeat(4)), long);
}

//! nginx, by curl, wrk and nc.

use super::*;

pub(crate) fn server() -> Server {
    // Its notice of the event method comes after it has bound its port.
    Server::start("event method", |port, folder| {
        let place = folder.display();
        let make = |name: &str| {
            fs::create_dir_all(folder.join(name)).expect("the test's folder can be written to");
        };
        make("www/uploaded");
        fs::write(folder.join("www/small"), "a small file\n").expect("it can be written to");
        fs::write(folder.join("www/middle"), text(40_000)).expect("it can be written to");
        fs::write(folder.join("www/big"), text(10 << 20)).expect("it can be written to");
        // One process, so that ending it ends nginx.
        let config = format!(
            "daemon off; master_process off; pid {place}/pid; error_log stderr notice;
            events {{ worker_connections 256; }}
            http {{
                access_log off; client_max_body_size 20m; port_in_redirect off;
                client_body_temp_path {place}/1; proxy_temp_path {place}/2;
                fastcgi_temp_path {place}/3; uwsgi_temp_path {place}/4; scgi_temp_path {place}/5;
                server {{
                    listen 127.0.0.1:{port}; root {place}/www;
                    location /uploaded/ {{ dav_methods PUT; }}
                    location /said/ {{ return 200 \"$uri\\n\"; }}
                }}
            }}"
        );
        fs::write(folder.join("conf"), config).expect("the test's folder can be written to");
        let mut command = program("nginx");
        command.arg("-p").arg(folder).arg("-c").arg(folder.join("conf"));
        command
    })
}

pub(crate) fn curl(proxy: &Proxy, path: &str) -> Command {
    let mut command = program("curl");
    // -q: not with the settings of whoever runs this.
    command.args(["-q", "--silent", "--show-error", "--fail", "--noproxy", "*"]);
    command.arg(format!("http://127.0.0.1:{}/{path}", proxy.port));
    command
}

fn assert_same(one: &Path, other: &Path) {
    let read = |path: &Path| fs::read(path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
    assert!(read(one) == read(other), "{one:?} and {other:?} differ");
}

pub(crate) fn download() {
    let server = server();
    let proxy = Proxy::before(&server.address());
    assert_eq!(succeed(&mut curl(&proxy, "small"), "").stdout(), "a small file\n");
    let got = server.folder.0.join("got");
    succeed(curl(&proxy, "big").arg("--output").arg(&got), "");
    assert_same(&got, &server.folder.0.join("www/big"));
    assert_eq!(proxy.stop().clean(), 2);
}

pub(crate) fn upload() {
    let server = server();
    let proxy = Proxy::before(&server.address());
    let www = server.folder.0.join("www");
    succeed(curl(&proxy, "uploaded/big").arg("--upload-file").arg(www.join("big")), "");
    assert_same(&www.join("uploaded/big"), &www.join("big"));
    assert_eq!(proxy.stop().clean(), 1);
}

/// The client ends its sending behind the request. (A small one: nginx itself cuts off what it cannot send at once
/// to such a client.)
pub(crate) fn half_closed() {
    let server = server();
    let proxy = Proxy::before(&server.address());
    let mut nc = program("nc");
    nc.args(["-N", "127.0.0.1", &proxy.port.to_string()]);
    let reply = succeed(&mut nc, "GET /small HTTP/1.0\r\n\r\n").stdout();
    let (head, body) = reply.split_once("\r\n\r\n").expect("a reply has a head and a body");
    assert!(head.starts_with("HTTP/1.1 200 OK"), "the reply begins {head}");
    assert_eq!(body, "a small file\n");
    assert_eq!(proxy.stop().clean(), 1);
}

pub(crate) fn load() {
    let server = server();
    let proxy = Proxy::before(&server.address());
    load_through(&proxy);
    // wrk leaves when its time is up. Replies are on their way to it then, which its kernel answers with a reset.
    proxy.stop().clean_or_left_by_the_client();
}

pub(crate) fn load_through(proxy: &Proxy) {
    let mut wrk = program("wrk");
    wrk.args(["--threads", "1", "--connections", "20", "--duration", "1s"]);
    wrk.arg(format!("http://127.0.0.1:{}/small", proxy.port));
    let said = succeed(&mut wrk, "").stdout();
    assert!(said.contains("requests in"), "wrk said: {said}");
    assert!(!said.contains("Socket errors"), "wrk said: {said}");
    assert!(!said.contains("Non-2xx"), "wrk said: {said}");
}

//! A minimal server for the same design: tiny_http, r2d2's default pool, a transaction for each
//! request.

use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use mysql::prelude::Queryable;
use mysql::{Opts, OptsBuilder};
use r2d2_mysql::MySqlConnectionManager;
use session_lock::testing::OwnerToken;

use crate::TABLE;

pub fn serve(url: &str) {
    const WORKERS: usize = 10;
    let http = Arc::new(tiny_http::Server::http("127.0.0.1:0").unwrap());
    let options = OptsBuilder::from_opts(Opts::from_url(url).unwrap());
    let pool = r2d2::Pool::new(MySqlConnectionManager::new(options)).unwrap();
    eprintln!("listening on {}", http.server_addr());
    // tiny_http leaves connections of a burst unaccepted; each new connection lets it accept one
    // more.
    let address = http.server_addr().to_ip().unwrap();
    thread::spawn(move || {
        loop {
            let _ = TcpStream::connect(address);
            thread::sleep(Duration::from_millis(20));
        }
    });
    eprintln!("ready");
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let (http, pool) = (Arc::clone(&http), pool.clone());
            thread::spawn(move || {
                while let Ok(mut request) = http.recv() {
                    let mut body = String::new();
                    let _ = request.as_reader().read_to_string(&mut body);
                    let fields: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
                    let text = |name: &str| fields[name].as_str().unwrap_or_default().to_owned();
                    let ids = (text("id_prospect"), text("id_device"));
                    let mut conn = pool.get().unwrap();
                    let answer = if request.url() == "/v1/acquire" {
                        literal_acquire(&mut conn, &ids)
                    } else {
                        literal_release(&mut conn, &ids, &text("owner_token"))
                    };
                    drop(conn);
                    let (status, body) = answer.unwrap_or_else(|error| (503, error.to_string()));
                    let response = tiny_http::Response::from_string(body).with_status_code(status);
                    let _ = request.respond(response);
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
}

fn literal_acquire(conn: &mut mysql::Conn, ids: &(String, String)) -> mysql::Result<(u16, String)> {
    let token = OwnerToken::draw();
    let mut transaction = conn.start_transaction(mysql::TxOpts::default())?;
    let sql = format!(
        "INSERT INTO {TABLE} (id_prospect, id_device, timestamp) VALUES (?, ?, CONCAT(NOW(6), ?)) \
         ON DUPLICATE KEY UPDATE timestamp = IF(LEFT(timestamp, 26) < NOW(6) - INTERVAL 30 SECOND, VALUES(timestamp), timestamp)"
    );
    transaction.exec_drop(sql, (&ids.0, &ids.1, token.secret()))?;
    let read =
        format!("SELECT RIGHT(timestamp, 20) FROM {TABLE} WHERE id_prospect = ? AND id_device = ?");
    let stored: Option<String> = transaction.exec_first(read, ids)?;
    transaction.commit()?;
    Ok(if stored.as_deref() == Some(token.secret()) {
        (200, format!(r#"{{"granted":true,"owner_token":"{}"}}"#, token.secret()))
    } else {
        (409, r#"{"granted":false}"#.to_owned())
    })
}

fn literal_release(
    conn: &mut mysql::Conn,
    ids: &(String, String),
    token: &str,
) -> mysql::Result<(u16, String)> {
    let mut transaction = conn.start_transaction(mysql::TxOpts::default())?;
    let sql = format!(
        "DELETE FROM {TABLE} WHERE id_prospect = ? AND id_device = ? AND RIGHT(timestamp, 20) = ?"
    );
    transaction.exec_drop(sql, (&ids.0, &ids.1, token))?;
    let released = transaction.affected_rows() == 1;
    transaction.commit()?;
    Ok((if released { 200 } else { 409 }, format!(r#"{{"released":{released}}}"#)))
}

//! How many conversations per second each program acquires and releases: `make bench` prints a
//! table. The results, and what was tested, are in `benches/README.md`.
//!
//! Every row uses the same loop: a number of clients, each with its own connection, repeatedly
//! acquire and release a conversation. The rows take turns for several rounds, and the table shows
//! medians.

mod database;
mod http;
mod literal;
mod measure;
mod other_stores;
mod servers;
mod service;

use std::collections::BTreeMap;
use std::path::PathBuf;

use database::{get_lock, old_program, raw};
use measure::{Measured, Row, measure, setting};
use other_stores::{etcd, redis};
use servers::Servers;
use service::{contended, http_pairs, noops, refused};

const TABLE: &str = "ai_whatsapp_session_nodepath";

/// `BENCH_CLIENTS` (one number) replaces these.
const CLIENTS: [usize; 3] = [1, 64, 256];

/// `BENCH_ROUNDS` changes this.
const ROUNDS: u64 = 3;

/// `BENCH_DATABASE` in the environment selects one database, and `BENCH_ONLY` rows (their names,
/// separated by `;`).
fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    if let [_, mode, url, ..] = &arguments[..]
        && mode == "literal"
    {
        return literal::serve(url);
    }
    let only = std::env::var("BENCH_ONLY").unwrap_or_default();
    let mysqld = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/mysql/mysqld"));
    for (name, program) in [("MariaDB", PathBuf::from("/usr/sbin/mariadbd")), ("MySQL", mysqld)] {
        if std::env::var("BENCH_DATABASE").is_ok_and(|wanted| wanted != name) {
            continue;
        }
        let servers = Servers::start(&program);
        println!("\n{name}\n");
        print_table(&servers, &only);
    }
}

/// The rows of the table, without `raw`.
fn rows(servers: &Servers) -> Vec<(&'static str, Row<'_>)> {
    let mut rows: Vec<(&str, Row)> = vec![
        ("ours", Box::new(|_| http_pairs(&servers.ours))),
        ("ours, 8 sessions", Box::new(|_| contended(&servers.ours))),
        ("ours, refused", Box::new(|_| refused(&servers.ours))),
        ("no-op route", Box::new(|_| noops(&servers.ours))),
        ("literal", Box::new(|_| http_pairs(&servers.literal))),
        ("old program", Box::new(|_| old_program(&servers.database.url()))),
        ("GET_LOCK", Box::new(|_| get_lock(&servers.database.url()))),
    ];
    if let Some(address) = &servers.etcd {
        rows.push(("etcd", Box::new(move |_| etcd(address))));
    }
    if let Some(address) = &servers.redis {
        rows.push(("Redis, appendfsync always", Box::new(move |_| redis(address))));
    }
    rows
}

fn print_table(servers: &Servers, only: &str) {
    let mut table: BTreeMap<(usize, usize), Vec<Measured>> = BTreeMap::new();
    let rows = rows(servers);
    let is_wanted = |name: &str| only.is_empty() || only.split(';').any(|wanted| wanted == name);
    let clients = match setting("BENCH_CLIENTS", 0) {
        0 => CLIENTS.to_vec(),
        one => vec![usize::try_from(one).expect("BENCH_CLIENTS is too large")],
    };
    for _ in 0..setting("BENCH_ROUNDS", ROUNDS) {
        for (at, (name, row)) in rows.iter().enumerate() {
            for &clients in clients.iter().filter(|_| is_wanted(name)) {
                table.entry((at, clients)).or_default().push(measure(row, clients));
            }
        }
        if is_wanted("raw") {
            let raw = raw(&servers.database.url());
            table.entry((rows.len(), 0)).or_default().push(raw);
        }
    }
    println!("| | clients | pairs/s | p50 | p99 | errors |\n|---|---:|---:|---:|---:|---:|");
    for ((at, clients), measured) in table {
        let name = rows.get(at).map_or("raw", |(name, _)| name);
        let median = |value: fn(&Measured) -> u64| {
            let mut values: Vec<_> = measured.iter().map(value).collect();
            values.sort_unstable();
            values[values.len() / 2]
        };
        let ms = |us: u64| format!("{}.{:02} ms", us / 1_000, us % 1_000 / 10);
        println!(
            "| {name} | {clients} | {} | {} | {} | {} |",
            median(|row| row.pairs_per_s),
            ms(median(|row| row.p50_us)),
            ms(median(|row| row.p99_us)),
            measured.iter().map(|row| row.errors).sum::<u64>(),
        );
    }
}

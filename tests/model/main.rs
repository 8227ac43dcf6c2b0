//! Every interleaving of the protocol's statements, not only those that a storm happens to meet.
//!
//! The table is simulated (`table`, `statements`). What decides is the product: its `Attempt` says which packet
//! comes next and what rows mean, its `Statements` write the packet, and the model reads the statements and
//! their values back from that text (`plan`, `sql`). `stateright` explores the states, breadth first.
//! A scene (`scenes`) says who acts and how often what may go wrong; each is explored completely.
//! Each guard of each statement is dropped in turn (`faults`), and a shortest way to a broken promise
//! (`wrong`) is printed (`story`).
//!
//! What is left out:
//! - how replies are told apart in a batch (`store/reply.rs`), other spellings of a session, the ids' sequence;
//!   `store/retry.rs` is repeated here in a few lines;
//! - an acquire for several sessions waits for all their locks at once, and gap locks do not exist;
//! - the database loses nothing that it committed: no asynchronous failover;
//! - time stands still but for jumps of half a ttl, so nothing is exact to the second;
//! - where `Config::merges` is set, a transaction that holds its session's lock and has only to read and to
//!   commit does so at once, and the reply to a packet arrives at once.

mod content;
mod faults;
mod plan;
mod run;
mod scenes;
mod sql;
mod statements;
mod step;
mod story;
mod table;
mod wedge;
mod world;
mod wrong;

use std::time::Instant;

use stateright::{Checker, Model, Path, Property};
use world::{Action, Config, State};

impl Model for Config {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.begin()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.list_actions(state, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        self.next(last, action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always(RIGHT, |_: &Config, state: &State| state.wrong.is_none())]
    }
}

const RIGHT: &str = "nothing is wrong";

/// Explores all states of a scene; how many there are, and the shortest way to one that is wrong.
fn explore(config: &Config, threads: usize) -> (usize, Option<Path<State, Action>>) {
    let checker = config.clone().checker().threads(threads).spawn_bfs().join();
    (checker.unique_state_count(), checker.discovery(RIGHT))
}

/// With `PROVE` in the environment, also larger scenes: minutes, and gigabytes.
#[test]
fn no_interleaving_breaks_a_promise() {
    explore_all(scenes::SCENES);
    if std::env::var_os("PROVE").is_some() {
        explore_all(scenes::LARGE);
    }
}

fn explore_all(scenes: &[(&str, Config)]) {
    let mut all = 0;
    for (name, config) in scenes {
        let began = Instant::now();
        let (states, found) = explore(config, 2);
        println!("{states:>9} states in {:>5.1} s: {name}", began.elapsed().as_secs_f64());
        if let Some(path) = found {
            panic!("{name}:\n{}", story::tell(config, path));
        }
        all += states;
    }
    println!("{all:>9} states");
}

#[test]
fn without_any_one_guard_a_promise_is_broken() {
    let mut missed = vec![];
    let faults = faults::GUARDS.iter().chain(faults::OTHERS);
    for (name, scene, spoil) in faults {
        let mut config = scene.clone();
        spoil(&mut config);
        let began = Instant::now();
        let (states, found) = explore(&config, 1);
        let seconds = began.elapsed().as_secs_f64();
        let Some(path) = found else {
            println!("NOT FOUND: {name}, {states} states, {seconds:.1} s");
            missed.push(name);
            continue;
        };
        let steps = path.clone().into_actions().len();
        println!(
            "{name}: {steps} steps, {states} states, {seconds:.1} s\n{}",
            story::tell(&config, path)
        );
    }
    assert!(missed.is_empty(), "{missed:?}");
}

//! The program `session-lock`; see the library.

/// musl's own allocator is slow with threads.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    session_lock::main()
}

//! What lines of a cell that are not Rust become: see `nbs_export/src/kernel/proxy/cell.rs`.

use std::io::Write as _;
use std::process::{Command, ExitStatus};
use std::time::Instant;
use std::{env, io};

/// Runs a command of the shell; its output streams. Says how it ended where that was badly.
pub fn shell(command: &str) {
    let (shell, flag) = if cfg!(windows) { ("cmd", "/C") } else { ("sh", "-c") };
    run(Command::new(shell).args([flag, command]));
}

/// Runs a script of several lines.
pub fn script(shell: &str, text: &str) {
    run(Command::new(shell).args(["-c", text]));
}

fn run(command: &mut Command) {
    // What was printed before comes before.
    let _ = io::stdout().flush();
    match command.stdin(std::process::Stdio::null()).status() {
        Ok(status) if status.success() => {}
        Ok(status) => eprintln!("{}", ended(status)),
        Err(error) => eprintln!("cannot start {}: {error}", command.get_program().to_string_lossy()),
    }
}

fn ended(status: ExitStatus) -> String {
    status.code().map_or_else(|| status.to_string(), |code| format!("exit status {code}"))
}

/// Changes the folder, and says which it is.
pub fn cd(folder: &str) {
    let home = || env::var("HOME").unwrap_or_default();
    let path = if folder == "~" { home() } else { folder.replacen("~/", &(home() + "/"), 1) };
    match env::set_current_dir(&path) {
        Ok(()) => println!("{}", env::current_dir().unwrap_or_default().display()),
        Err(error) => eprintln!("cannot change to {path}: {error}"),
    }
}

/// Shows all variables of the environment or one, or sets one: ``, `NAME`, `NAME=VALUE`.
pub fn env(text: &str) {
    match text.split_once('=') {
        // SAFETY: cells run one after the other on one thread; the library's own threads read no variable after their start.
        Some((name, value)) => unsafe { env::set_var(name.trim(), value.trim()) },
        None if text.is_empty() => env::vars_os()
            .for_each(|(name, value)| println!("{}={}", name.to_string_lossy(), value.to_string_lossy())),
        None => match env::var(text) {
            Ok(value) => println!("{value}"),
            Err(_) => eprintln!("the environment has no variable {text}"),
        },
    }
}

/// Says how long something took.
pub fn time<T>(work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let value = work();
    println!("Wall time: {:.3?}", start.elapsed());
    value
}

/// Shows a value of type `T`, whose `Debug` this is: see `BEGIN` in `nbs_export/src/kernel/proxy/session.rs`.
pub fn show<T: ?Sized>(debug: std::fmt::Arguments<'_>) {
    // What a `for` or a call gives that only does something.
    if std::any::type_name::<T>() != "()" {
        println!("EVCXR_BEGIN_CONTENT text/plain\n{debug}\nEVCXR_END_CONTENT");
    }
}

//! The cells' end of the link to the kernel: see `nbs_export/src/kernel/proxy/link.rs`.
//!
//! evcxr reads its child's output line by line, and tells neither a panic from a message about one, nor what ended a
//! process. So the child gives its three streams to the kernel in front of evcxr, which passes on what evcxr must see,
//! and reports panics, deaths and a wish for input through a socket.

use std::ffi::CStr;
use std::io::{self, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::panic::PanicHookInfo;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicUsize, Ordering};
use std::{env, fmt::Write as _, mem, ptr, thread};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::stdio;

/// How often output without a newline is written while a cell runs, in nanoseconds.
const TICK: i64 = 30_000_000;
/// A signal handler's stack: room for walking the stack and finding names.
const HANDLER_STACK: usize = 1 << 20;

static LINK: OnceLock<UnixStream> = OnceLock::new();
/// For signal handlers, which must not wait for anything; -1 before there is a link.
static LINK_FD: AtomicI32 = AtomicI32::new(-1);
/// A forked child inherits the link, but must not speak for its parent.
static OWNER: AtomicU32 = AtomicU32::new(0);
/// An address near the beginning of the stack of the thread that runs the cells.
static STACK_TOP: AtomicUsize = AtomicUsize::new(0);

/// Gives this process's streams to the kernel that is named in the environment; does nothing where none is.
pub fn start() -> io::Result<()> {
    let Some(path) = env::var_os("MINAI_KERNEL_SOCKET") else { return Ok(()) };
    if LINK.get().is_some() {
        return Ok(());
    }
    // Tensors come and go by the megabyte: given back to the system each time, they would cost half as much again.
    real::kernels::memory::keep_freed_memory();
    // What cells start finds the reader's programs, not the kernel's.
    if let Some(path) = env::var_os("NBS_PATH") {
        // SAFETY: nothing else runs in this process yet.
        unsafe {
            env::set_var("PATH", path);
            env::remove_var("CARGO");
            env::remove_var("RUSTC");
            match env::var_os("NBS_CARGO_HOME") {
                Some(home) => env::set_var("CARGO_HOME", home),
                None => env::remove_var("CARGO_HOME"),
            }
        }
    }
    let link = UnixStream::connect(path)?;
    let (input, input_end) = pipe_with(PipeFlags::CLOEXEC)?;
    let (output_end, output) = pipe_with(PipeFlags::CLOEXEC)?;
    let (errors_end, errors) = pipe_with(PipeFlags::CLOEXEC)?;
    let fds = [stdio::stdin(), stdio::stdout(), input_end.as_fd(), output_end.as_fd(), errors_end.as_fd()];
    send_with(&link, format!("{{\"pid\":{}}}\n", std::process::id()).as_bytes(), &fds)?;
    io::stdout().flush()?;
    stdio::dup2_stdin(&input)?;
    stdio::dup2_stdout(&output)?;
    stdio::dup2_stderr(&errors)?;
    OWNER.store(std::process::id(), Ordering::Relaxed);
    LINK_FD.store(link.as_raw_fd(), Ordering::Relaxed);
    let reader = link.try_clone()?;
    LINK.get_or_init(|| link);
    let cells = thread_id();
    thread::Builder::new().name("minai-kernel".into()).spawn(move || serve(reader, cells))?;
    std::panic::set_hook(Box::new(report_panic));
    watch_for_death();
    Ok(())
}

fn send_with(link: &UnixStream, text: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(5))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    if !rights.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other("no room for the streams"));
    }
    sendmsg(link, &[io::IoSlice::new(text)], &mut rights, SendFlags::empty())?;
    Ok(())
}

/// What the kernel asks for, a byte each: `r`, a cell runs; `i`, none does; `f`, write what is buffered and say so.
/// While a cell runs, output without a newline is written every few hundredths of a second.
fn serve(mut link: UnixStream, cells: u64) {
    let (mut running, mut waiting, mut ticks) = (false, false, 0_u32);
    loop {
        let limit = Timespec { tv_sec: 0, tv_nsec: TICK };
        let fd = link.as_fd();
        let ready = poll(&mut [PollFd::new(&fd, PollFlags::IN)], running.then_some(&limit));
        if ready == Ok(0) {
            let _ = io::stdout().flush();
            ticks += 1;
            // Twice in a row: the thread may only just have begun to wait for its next cell.
            if ticks.is_multiple_of(4) {
                let now = waits_for_input(cells);
                if now && waiting {
                    send("{\"input\":true}\n");
                }
                waiting = now;
            }
            continue;
        }
        let mut byte = [0];
        match link.read(&mut byte) {
            Ok(1) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // The kernel is gone, and nobody waits for what the cell may still do.
            // SAFETY: ends the process, without anything that a running cell could be in the middle of.
            _ => unsafe { libc::_exit(1) },
        }
        match byte[0] {
            b'r' => (running, waiting) = (true, false),
            b'i' => running = false,
            b'f' => {
                let _ = io::stdout().flush();
                send("{\"flushed\":true}\n");
            }
            _ => {}
        }
    }
}

fn send(line: &str) {
    if let Some(mut link) = LINK.get() {
        let _ = link.write_all(line.as_bytes());
    }
}

#[cfg(target_os = "linux")]
fn thread_id() -> u64 {
    rustix::thread::gettid().as_raw_nonzero().get() as u64
}

/// Does this thread sit in `read(0, …)`?
#[cfg(target_os = "linux")]
fn waits_for_input(thread: u64) -> bool {
    let call = std::fs::read_to_string(format!("/proc/self/task/{thread}/syscall")).unwrap_or_default();
    let mut words = call.split(' ');
    let read = words.next().is_some_and(|n| n.parse() == Ok(libc::SYS_read));
    read && words.next() == Some("0x0")
}

#[cfg(not(target_os = "linux"))]
fn thread_id() -> u64 {
    0
}

#[cfg(not(target_os = "linux"))]
fn waits_for_input(_thread: u64) -> bool {
    false
}

fn report_panic(info: &PanicHookInfo<'_>) {
    let payload = info.payload();
    let message = payload.downcast_ref::<&str>().copied();
    let message =
        message.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("Box<dyn Any>");
    let place =
        info.location().map_or(String::new(), |l| format!("{}:{}:{}", l.file(), l.line(), l.column()));
    let thread = thread::current();
    let name = thread.name().unwrap_or("<unnamed>");
    let trace = trace();
    if !is_owner() {
        eprintln!("thread '{name}' panicked at {place}:\n{message}");
        return;
    }
    // The kernel prints the message where the panic does not end the cell: printed here too, it would be shown twice.
    let line = object(&[("panic", message), ("place", &place), ("thread", name), ("trace", &trace)]);
    send(&line);
}

/// The frames in cells, from the inside out: an offset and a cell's library, a frame a line. The kernel finds the lines.
fn trace() -> String {
    const MOST: usize = 20;
    let (mut text, mut frames) = (String::new(), 0);
    backtrace::trace(|frame| {
        let address = frame.ip();
        // SAFETY: all zeros are valid for this plain structure.
        let mut library: libc::Dl_info = unsafe { mem::zeroed() };
        // SAFETY: the structure is valid for writing; any address may be asked about.
        let found = unsafe { libc::dladdr(address, &mut library) } != 0 && !library.dli_fname.is_null();
        if found {
            // SAFETY: a name that is not null is a C string that lives as long as its library, which is never unloaded.
            let name = unsafe { CStr::from_ptr(library.dli_fname) }.to_string_lossy();
            if name.contains("libcode_") {
                // The address is that of the instruction after the call.
                let offset = (address as usize).wrapping_sub(library.dli_fbase as usize).saturating_sub(1);
                let _ = writeln!(text, "{offset} {name}");
                frames += 1;
            }
        }
        frames < MOST
    });
    text
}

/// A JSON object of texts, as a line.
fn object(fields: &[(&str, &str)]) -> String {
    let mut line = String::from("{");
    for (k, (name, value)) in fields.iter().enumerate() {
        let comma = if k == 0 { "" } else { "," };
        let _ = write!(line, "{comma}\"{name}\":\"");
        for c in value.chars() {
            match c {
                '"' | '\\' => {
                    let _ = write!(line, "\\{c}");
                }
                c if u32::from(c) < 32 => {
                    let _ = write!(line, "\\u{:04x}", u32::from(c));
                }
                c => line.push(c),
            }
        }
        line.push('"');
    }
    line + "}\n"
}

/// Lets the process say what ends it: `exit`, an overflow of the stack, another wrong access, or `abort`.
fn watch_for_death() {
    let here = 0_u8;
    STACK_TOP.store(ptr::from_ref(&here) as usize, Ordering::Relaxed);
    // A stack of its own for handlers on this thread: there may be none left on the thread's.
    let stack = Box::leak(vec![0_u8; HANDLER_STACK].into_boxed_slice());
    let alternative = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: HANDLER_STACK };
    let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) = on_signal;
    // SAFETY: the alternative stack is never freed; the handler has the signature that SA_SIGINFO asks for; the action is
    // fully initialised; `on_exit` is a function for the rest of the process, for this library is never unloaded.
    unsafe {
        libc::sigaltstack(&alternative, ptr::null_mut());
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT] {
            libc::sigaction(signal, &action, ptr::null_mut());
        }
        libc::atexit(on_exit);
    }
}

fn is_owner() -> bool {
    OWNER.load(Ordering::Relaxed) == std::process::id()
}

extern "C" fn on_exit() {
    if !is_owner() {
        return;
    }
    let trace = trace();
    send(&object(&[("death", "exit"), ("trace", &trace)]));
}

/// The process dies of this signal, in any case: what is done here may fail, or hang until the alarm goes off.
extern "C" fn on_signal(signal: i32, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: plain system calls; `info` is valid, for the system calls us with SA_SIGINFO.
    let address = unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::signal(libc::SIGALRM, libc::SIG_DFL);
        libc::alarm(3);
        (*info).si_addr() as usize
    };
    if !is_owner() {
        return;
    }
    let top = STACK_TOP.load(Ordering::Relaxed);
    let what = match signal {
        libc::SIGABRT => "abort",
        libc::SIGFPE => "arithmetic",
        libc::SIGILL => "instruction",
        _ if (top.saturating_sub(stack_limit())..top).contains(&address) => "stack overflow",
        _ => "segmentation fault",
    };
    say(&format!("{{\"death\":\"{what}\"}}\n"));
    let trace = trace();
    say(&object(&[("death", what), ("trace", &trace)]));
    if signal == libc::SIGABRT || signal == libc::SIGFPE {
        // `abort` raises the signal again when this returns; the others come again by themselves.
        return;
    }
}

/// The largest size of the stack, and some more for what lies below its end.
fn stack_limit() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Stack).current;
    limit.map_or(1 << 30, |l| l as usize) + (1 << 20)
}

fn say(text: &str) {
    let fd = LINK_FD.load(Ordering::Relaxed);
    // SAFETY: the text is valid for its length, and the descriptor is the link's, which is never closed.
    unsafe { libc::write(fd, text.as_ptr().cast(), text.len()) };
}

//! Pickles that may be damaged or hostile: a guard that a pickle passes on its way to `serde-pickle`.
//!
//! `serde-pickle` runs no code, but 100,000 nested tuples overflow its stack, a string that is stored once and fetched a
//! million times fills the memory, and a name that it does not know is left out without a word. So [`PickleGuard`] reads
//! every byte first. It simulates the pickle machine and keeps of each value only how deep and how heavy it is. The
//! instructions are described in Python's [`pickletools.py`](https://github.com/python/cpython/blob/main/Lib/pickletools.py).

use super::data::{DataFault, data_error};
use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// What follows an instruction's byte.
#[derive(Clone, Copy, Debug, PartialEq)]
enum PickleOperand {
    /// This many bytes.
    Fixed(usize),
    /// A length in this many bytes, and then so many bytes.
    Counted(usize),
    /// This many lines of text.
    Lines(usize),
}

/// What a value on the simulated stack is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum PickleKind {
    Plain,
    Text,
    Bytes,
    Tuple,
    List,
    Dict,
    Set,
    Name,
}

/// What an instruction does to the stack. `Some(n)`: with the topmost n values; `None`: with all down to the mark.
#[derive(Clone, Copy, Debug, PartialEq)]
enum PickleStep {
    Skip,
    Mark,
    Stop,
    Push(PickleKind),
    Gather(PickleKind, Option<usize>),
    Extend(PickleKind, Option<usize>),
    Put,
    Get,
    Name,
    NameFromStack,
    Call,
    Build,
}

// What is missing here is refused: instructions that make instances of classes, that duplicate the top of the stack, or that
// look outside of the file. No array needs them. `INST` is here for the sake of its message, and refused in `do_step`.
#[rustfmt::skip] // a table
fn pickle_instruction(code: u8) -> Option<(PickleOperand, PickleStep)> {
    use PickleKind::*;
    use PickleOperand::*;
    use PickleStep::*;
    Some(match code {
        0x80 => (Fixed(1), Skip),                      // PROTO
        0x95 => (Fixed(8), Skip),                      // FRAME
        b'(' => (Fixed(0), Mark),                      // MARK
        b'.' => (Fixed(0), Stop),                      // STOP
        b'N' | 0x88 | 0x89 => (Fixed(0), Push(Plain)), // NONE, NEWTRUE, NEWFALSE
        b'K' => (Fixed(1), Push(Plain)),               // BININT1
        b'M' => (Fixed(2), Push(Plain)),               // BININT2
        b'J' => (Fixed(4), Push(Plain)),               // BININT
        b'G' => (Fixed(8), Push(Plain)),               // BINFLOAT
        b'I' | b'L' | b'F' => (Lines(1), Push(Plain)), // INT, LONG, FLOAT as text
        0x8a => (Counted(1), Push(Plain)),             // LONG1
        0x8b => (Counted(4), Push(Plain)),             // LONG4
        b'S' => (Lines(1), Push(Bytes)),               // STRING
        b'U' | b'C' => (Counted(1), Push(Bytes)),      // SHORT_BINSTRING, SHORT_BINBYTES
        b'T' | b'B' => (Counted(4), Push(Bytes)),      // BINSTRING, BINBYTES
        0x8e | 0x96 => (Counted(8), Push(Bytes)),      // BINBYTES8, BYTEARRAY8
        b'V' => (Lines(1), Push(Text)),                // UNICODE
        0x8c => (Counted(1), Push(Text)),              // SHORT_BINUNICODE
        b'X' => (Counted(4), Push(Text)),              // BINUNICODE
        0x8d => (Counted(8), Push(Text)),              // BINUNICODE8
        b')' => (Fixed(0), Gather(Tuple, Some(0))),    // EMPTY_TUPLE
        0x85..=0x87 => (Fixed(0), Gather(Tuple, Some(usize::from(code - 0x84)))), // TUPLE1, 2, 3
        b't' => (Fixed(0), Gather(Tuple, None)),       // TUPLE
        b']' => (Fixed(0), Gather(List, Some(0))),     // EMPTY_LIST
        b'l' => (Fixed(0), Gather(List, None)),        // LIST
        b'a' => (Fixed(0), Extend(List, Some(1))),     // APPEND
        b'e' => (Fixed(0), Extend(List, None)),        // APPENDS
        b'}' => (Fixed(0), Gather(Dict, Some(0))),     // EMPTY_DICT
        b'd' => (Fixed(0), Gather(Dict, None)),        // DICT
        b's' => (Fixed(0), Extend(Dict, Some(2))),     // SETITEM
        b'u' => (Fixed(0), Extend(Dict, None)),        // SETITEMS
        0x8f => (Fixed(0), Gather(Set, Some(0))),      // EMPTY_SET
        0x90 => (Fixed(0), Extend(Set, None)),         // ADDITEMS
        0x91 => (Fixed(0), Gather(Set, None)),         // FROZENSET
        b'p' => (Lines(1), Put),                       // PUT
        b'q' => (Fixed(1), Put),                       // BINPUT
        b'r' => (Fixed(4), Put),                       // LONG_BINPUT
        0x94 => (Fixed(0), Put),                       // MEMOIZE
        b'g' => (Lines(1), Get),                       // GET
        b'h' => (Fixed(1), Get),                       // BINGET
        b'j' => (Fixed(4), Get),                       // LONG_BINGET
        b'c' | b'i' => (Lines(2), PickleStep::Name),   // GLOBAL, INST
        0x93 => (Fixed(0), NameFromStack),             // STACK_GLOBAL
        b'R' => (Fixed(0), Call),                      // REDUCE
        b'b' => (Fixed(0), Build),                     // BUILD
        _ => return None,
    })
}

/// How deep values in a pickle may be nested: arrays in nested tuples need about six levels.
pub const PICKLE_DEPTH: usize = 64;

const PICKLE_VALUE_COST: u64 = 256;

/// What the guard remembers of a value.
#[derive(Clone, Debug)]
struct PickleItem {
    kind: PickleKind,
    depth: usize,
    weight: u64,
    /// A short string's or a name's text; of a container, the text of its first member.
    text: Option<Rc<str>>,
    /// Its number in the memo.
    memo: Option<u32>,
}

/// The pickle machine without its values.
#[derive(Debug, Default)]
struct PickleScan {
    stack: Vec<PickleItem>,
    /// How high the stack was at each open mark.
    marks: Vec<usize>,
    memo: HashMap<u32, PickleItem>,
    /// Memo numbers that were used.
    fetched: HashSet<u32>,
    /// The sum of all costs, and what it may become.
    spent: u64,
    limit: u64,
    /// First arguments of calls of numpy.dtype.
    dtypes: Vec<String>,
    stopped: bool,
    wait: PickleWait,
    /// The operand so far.
    kept: Vec<u8>,
}

/// What the next byte of the stream is.
#[derive(Clone, Copy, Debug, Default)]
enum PickleWait {
    #[default]
    Instruction,
    Operand(u8, PickleOperand, PickleStep),
    Content {
        code: u8,
        step: PickleStep,
        length: u64,
        left: u64,
    },
}

fn spend(scan: &mut PickleScan, cost: u64) -> Result<(), DataFault> {
    scan.spent = scan.spent.saturating_add(cost);
    if scan.spent > scan.limit {
        return Err(DataFault::PastLimit(scan.limit));
    }
    Ok(())
}

fn push_item(scan: &mut PickleScan, item: PickleItem, cost: u64) -> Result<(), DataFault> {
    spend(scan, cost)?;
    if item.depth > PICKLE_DEPTH {
        return Err(DataFault::TooDeep(PICKLE_DEPTH));
    }
    scan.stack.push(item);
    Ok(())
}

/// The topmost `count` values, or all down to the mark; never more than lie above the mark.
fn take_items(scan: &mut PickleScan, count: Option<usize>) -> Result<Vec<PickleItem>, DataFault> {
    let mark = scan.marks.last().copied();
    let from = match count {
        Some(count) => scan.stack.len().checked_sub(count).filter(|&from| from >= mark.unwrap_or(0)),
        None => scan.marks.pop(),
    };
    let from = from.ok_or_else(|| DataFault::BadPickle("takes more from the stack than there is".into()))?;
    Ok(scan.stack.split_off(from))
}

fn take_one(scan: &mut PickleScan, kind: Option<PickleKind>) -> Result<PickleItem, DataFault> {
    let item = take_items(scan, Some(1))?.remove(0);
    match kind.filter(|&kind| kind != item.kind) {
        Some(kind) => Err(DataFault::BadPickle(format!("finds a {:?} where a {kind:?} belongs", item.kind))),
        None => Ok(item),
    }
}

fn pickle_gather(scan: &mut PickleScan, kind: PickleKind, count: Option<usize>) -> Result<(), DataFault> {
    let parts = take_items(scan, count)?;
    let depth = 1 + parts.iter().map(|part| part.depth).max().unwrap_or(0);
    let weight = PICKLE_VALUE_COST + parts.iter().map(|part| part.weight).sum::<u64>();
    let text = parts.first().and_then(|part| part.text.clone()); // for the arguments of numpy.dtype
    push_item(scan, PickleItem { kind, depth, weight, text, memo: None }, PICKLE_VALUE_COST)
}

/// Puts values into a container that is on the stack already. One that was fetched from the memo may not change any more:
/// it could be filled with something deep after it was used, or be put into itself.
fn pickle_extend(scan: &mut PickleScan, kind: PickleKind, count: Option<usize>) -> Result<(), DataFault> {
    let parts = take_items(scan, count)?;
    let mut whole = take_one(scan, Some(kind))?;
    if whole.memo.is_some_and(|id| scan.fetched.contains(&id)) {
        return Err(DataFault::BadPickle("changes a value after it was used, or puts it into itself".into()));
    }
    for part in parts {
        whole.depth = whole.depth.max(1 + part.depth);
        whole.weight += part.weight;
    }
    if let Some(id) = whole.memo {
        scan.memo.insert(id, whole.clone());
    }
    push_item(scan, whole, 0)
}

fn memo_id(code: u8, operand: &[u8], next: usize) -> Result<u32, DataFault> {
    let id = match (code, operand) {
        (b'p' | b'g', line) => str::from_utf8(line).ok().and_then(|line| line.lines().next()?.parse().ok()),
        (_, []) => u32::try_from(next).ok(),
        (_, [byte]) => Some(u32::from(*byte)),
        (_, bytes) => bytes.try_into().ok().map(u32::from_le_bytes),
    };
    id.ok_or_else(|| DataFault::BadPickle("a memo number that is none".into()))
}

fn memo_put(scan: &mut PickleScan, id: u32) -> Result<(), DataFault> {
    let item = take_one(scan, None)?;
    if item.memo.is_some() || scan.memo.contains_key(&id) {
        return Err(DataFault::BadPickle(format!("memo {id} is used twice")));
    }
    let item = PickleItem { memo: Some(id), ..item };
    scan.memo.insert(id, item.clone());
    push_item(scan, item, PICKLE_VALUE_COST)
}

fn memo_get(scan: &mut PickleScan, id: u32) -> Result<(), DataFault> {
    let item = scan.memo.get(&id).cloned();
    let item = item.ok_or_else(|| DataFault::BadPickle(format!("memo {id} is empty")))?;
    scan.fetched.insert(id);
    let cost = item.weight;
    push_item(scan, item, cost)
}

const PICKLE_NAMES: [&str; 7] = [
    "_codecs.encode",
    "numpy.core.numeric._frombuffer",
    "numpy._core.numeric._frombuffer",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.ndarray",
    "numpy.dtype",
];

fn push_name(scan: &mut PickleScan, module: &str, name: &str) -> Result<(), DataFault> {
    let full = format!("{module}.{name}");
    if !PICKLE_NAMES.contains(&full.as_str()) {
        let shown: String = full.escape_debug().take(100).collect();
        let known_as =
            if ["posix", "nt"].contains(&module) { format!(" (os.{name})") } else { String::new() };
        return Err(DataFault::ForbiddenName(shown + &known_as));
    }
    let text = Some(Rc::from(full));
    let item = PickleItem { kind: PickleKind::Name, depth: 1, weight: PICKLE_VALUE_COST, text, memo: None };
    push_item(scan, item, PICKLE_VALUE_COST)
}

fn push_name_from_stack(scan: &mut PickleScan) -> Result<(), DataFault> {
    let name = take_one(scan, Some(PickleKind::Text))?.text;
    let module = take_one(scan, Some(PickleKind::Text))?.text;
    match (module, name) {
        (Some(module), Some(name)) => push_name(scan, &module, &name),
        _ => Err(DataFault::ForbiddenName("something that cannot be read".into())),
    }
}

/// A call is not made. What it was given is remembered, and the type of elements, which `serde-pickle` forgets.
fn pickle_call(scan: &mut PickleScan) -> Result<(), DataFault> {
    let arguments = take_one(scan, Some(PickleKind::Tuple))?;
    let callee = take_one(scan, Some(PickleKind::Name))?;
    if callee.text.as_deref() == Some("numpy.dtype") {
        scan.dtypes.push(arguments.text.as_deref().unwrap_or("?").to_owned());
    }
    // serde-pickle leaves the arguments in place of the result, so the result is as deep and as heavy as they are. It may
    // copy them to look at them.
    let (depth, weight) = (arguments.depth, arguments.weight);
    let result = PickleItem { kind: PickleKind::Name, depth, weight, text: None, memo: None };
    push_item(scan, result, weight)
}

fn push_value(scan: &mut PickleScan, kind: PickleKind, length: u64, kept: &[u8]) -> Result<(), DataFault> {
    let whole = length <= kept.len() as u64;
    let text = str::from_utf8(kept).ok().filter(|_| whole && kept.len() < 256).map(Rc::from);
    let weight = PICKLE_VALUE_COST.saturating_add(length);
    push_item(scan, PickleItem { kind, depth: 1, weight, text, memo: None }, weight)
}

fn do_step(
    scan: &mut PickleScan,
    code: u8,
    step: PickleStep,
    length: u64,
    kept: &[u8],
) -> Result<(), DataFault> {
    match step {
        PickleStep::Skip => Ok(()),
        PickleStep::Mark if scan.marks.len() == PICKLE_DEPTH => Err(DataFault::TooDeep(PICKLE_DEPTH)),
        PickleStep::Mark => {
            scan.marks.push(scan.stack.len());
            spend(scan, PICKLE_VALUE_COST)
        }
        PickleStep::Stop => {
            scan.stopped = true;
            take_one(scan, None).map(drop)
        }
        PickleStep::Push(kind) => push_value(scan, kind, length, kept),
        PickleStep::Gather(kind, count) => pickle_gather(scan, kind, count),
        PickleStep::Extend(kind, count) => pickle_extend(scan, kind, count),
        PickleStep::Put => memo_put(scan, memo_id(code, kept, scan.memo.len())?),
        PickleStep::Get => memo_get(scan, memo_id(code, kept, 0)?),
        PickleStep::Name => {
            let text = String::from_utf8_lossy(kept);
            let mut lines = text.lines();
            push_name(scan, lines.next().unwrap_or(""), lines.next().unwrap_or(""))?;
            let is_instance = code == b'i';
            if is_instance {
                Err(DataFault::BadPickle("makes an instance of a class".into()))
            } else {
                Ok(())
            }
        }
        PickleStep::NameFromStack => push_name_from_stack(scan),
        PickleStep::Call => pickle_call(scan),
        PickleStep::Build => {
            let state = take_one(scan, None)?;
            take_one(scan, None)?;
            push_item(scan, state, 0)
        }
    }
}

fn end_instruction(scan: &mut PickleScan, code: u8, step: PickleStep, length: u64) -> Result<(), DataFault> {
    scan.wait = PickleWait::Instruction;
    let kept = std::mem::take(&mut scan.kept);
    do_step(scan, code, step, length, &kept)
}

fn begin_content(scan: &mut PickleScan, code: u8, step: PickleStep, length: u64) -> Result<(), DataFault> {
    if length > scan.limit {
        return Err(DataFault::PastLimit(scan.limit));
    }
    scan.kept.clear();
    scan.wait = PickleWait::Content { code, step, length, left: length };
    if length == 0 { end_instruction(scan, code, step, 0) } else { Ok(()) }
}

const PICKLE_LINE: usize = 4096;

/// Only a line's end is worth a count: counting at every byte would make long lines costly.
fn ends_lines(kept: &[u8], lines: usize) -> bool {
    kept.ends_with(b"\n") && kept.iter().filter(|&&byte| byte == b'\n').count() == lines
}

fn feed_operand(
    scan: &mut PickleScan,
    code: u8,
    operand: PickleOperand,
    step: PickleStep,
) -> Result<(), DataFault> {
    let have = scan.kept.len();
    match operand {
        PickleOperand::Fixed(bytes) if have == bytes => end_instruction(scan, code, step, 0),
        PickleOperand::Lines(lines) if ends_lines(&scan.kept, lines) => {
            end_instruction(scan, code, step, have as u64)
        }
        PickleOperand::Lines(_) if have == PICKLE_LINE => Err(DataFault::BadPickle("an endless line".into())),
        PickleOperand::Counted(bytes) if have == bytes => {
            let mut length = [0; 8];
            length[..bytes].copy_from_slice(&scan.kept);
            begin_content(scan, code, step, u64::from_le_bytes(length))
        }
        _ => Ok(()),
    }
}

fn begin_instruction(scan: &mut PickleScan, code: u8) -> Result<(), DataFault> {
    if scan.stopped {
        return Err(DataFault::BadPickle("goes on after its end".into()));
    }
    let Some((operand, step)) = pickle_instruction(code) else {
        return Err(DataFault::BadPickle(format!("0x{code:02x} is no instruction that an array needs")));
    };
    scan.wait = PickleWait::Operand(code, operand, step);
    feed_operand(scan, code, operand, step) // an operand of no bytes is complete
}

/// Takes in the next bytes of the stream and says how many of them it used, at least one.
fn pickle_feed(scan: &mut PickleScan, bytes: &[u8]) -> Result<usize, DataFault> {
    match scan.wait {
        PickleWait::Instruction => begin_instruction(scan, bytes[0])?,
        PickleWait::Operand(code, operand, step) => {
            scan.kept.push(bytes[0]);
            feed_operand(scan, code, operand, step)?;
        }
        PickleWait::Content { code, step, length, left } => {
            let used = left.min(bytes.len() as u64) as usize;
            let keep = used.min(256_usize.saturating_sub(scan.kept.len()));
            scan.kept.extend_from_slice(&bytes[..keep]);
            scan.wait = PickleWait::Content { code, step, length, left: left - used as u64 };
            if left == used as u64 {
                end_instruction(scan, code, step, length)?;
            }
            return Ok(used);
        }
    }
    Ok(1)
}

/// Passes a pickle through to its reader and stops it at the first instruction that is not harmless:
/// a forbidden name, too deep a nesting, more than `limit` bytes of values, an instruction no array needs.
/// Its errors are [`DataError`](super::data::DataError)s inside [`io::Error`]s.
#[derive(Debug)]
pub struct PickleGuard<R> {
    inner: R,
    path: PathBuf,
    scan: PickleScan,
    position: u64,
}

impl<R: Read> PickleGuard<R> {
    /// Guards the pickle in `inner`; `path` is what errors call it.
    pub fn new(inner: R, path: &Path, limit: u64) -> Self {
        let scan = PickleScan { limit, ..PickleScan::default() };
        Self { inner, path: path.to_path_buf(), scan, position: 0 }
    }

    /// The element types that arrays in the part read so far were declared with, such as `f4`.
    pub fn dtypes(&self) -> &[String] {
        &self.scan.dtypes
    }

    fn fail(&self, fault: DataFault) -> io::Error {
        io::Error::other(data_error(&self.path, format!("byte {} of the pickle", self.position), fault))
    }
}

fn pass_through<R: Read>(guard: &mut PickleGuard<R>, buffer: &mut [u8]) -> io::Result<usize> {
    let got = guard.inner.read(buffer)?;
    if got == 0 && !buffer.is_empty() && !guard.scan.stopped {
        return Err(guard.fail(DataFault::CutShort));
    }
    let mut bytes = &buffer[..got];
    while !bytes.is_empty() {
        let used = pickle_feed(&mut guard.scan, bytes).map_err(|fault| {
            guard.scan = PickleScan { stopped: true, ..PickleScan::default() }; // what follows is refused as well
            guard.fail(fault)
        })?;
        guard.position += used as u64;
        bytes = &bytes[used..];
    }
    Ok(got)
}

impl<R: Read> Read for PickleGuard<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        pass_through(self, buffer)
    }
}

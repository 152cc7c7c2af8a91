// Owned by notebooks/01_foundations.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 5cda32525fbdf8d8
//! Data sets from files that may be damaged, cut short or hostile: gzip, pickle, IDX.
//!
//! Every reader here is streaming and bounded, and fails with a [`DataError`] that names file, place and remedy.

// %% notebooks/01_foundations.ipynb app-fault
use std::{error, fmt, io};

/// What can be wrong with a data file.
#[derive(Debug)]
#[non_exhaustive]
pub enum DataFault {
    /// The operating system could not open or read the file.
    Io(io::Error),
    /// There is no such file in the folders looked through; this is how to get it.
    Missing(&'static str),
    /// The file does not begin as a gzip file does.
    NotGzip,
    /// The file ends in the middle of something.
    CutShort,
    /// Compressed data or a checksum inside the file is wrong.
    Damaged(String),
    /// The content is larger than this limit, in bytes.
    PastLimit(u64),
    /// The bytes are not a pickle, or a pickle that breaks the rules.
    BadPickle(String),
    /// The pickle names something that is not on the list of allowed names.
    ForbiddenName(String),
    /// The pickle is nested deeper than this many levels.
    TooDeep(usize),
    /// A proper file, but of other content than expected.
    Structure(String),
    /// A label that is no digit.
    BadLabel(i64),
    /// A pixel that is not a number from 0 to 1.
    BadPixel(f32),
    /// Not an IDX file, or one whose header cannot be true.
    BadIdx(String),
}

// %% notebooks/01_foundations.ipynb app-describe-fault
fn describe_fault(fault: &DataFault) -> (String, &'static str) {
    let again = "delete the file and fetch it again";
    let trusted = "get the file from a source that you trust";
    match fault {
        DataFault::Io(error) if error.kind() == io::ErrorKind::NotFound => {
            ("there is no such file".into(), "check the path, or fetch the file first")
        }
        DataFault::Io(error) => (error.to_string(), "check the file's permissions and its disk"),
        DataFault::Missing(remedy) => ("there is no such file".into(), remedy),
        DataFault::NotGzip => ("not a gzip file".into(), again),
        DataFault::CutShort => ("ends in the middle".into(), again),
        DataFault::Damaged(what) => (what.clone(), again),
        DataFault::PastLimit(limit) => (format!("unpacks to more than {limit} bytes"), trusted),
        DataFault::BadPickle(what) => (format!("no pickle, or a damaged one ({what})"), again),
        DataFault::ForbiddenName(name) => {
            (format!("names {name}, which is not allowed (nothing was run)"), trusted)
        }
        DataFault::TooDeep(limit) => (format!("nested more than {limit} levels deep"), trusted),
        DataFault::Structure(what) => (what.clone(), "check that this is the right file"),
        DataFault::BadLabel(label) => (format!("label {label} is no digit from 0 to 9"), again),
        DataFault::BadPixel(pixel) => (format!("pixel {pixel} is not between 0 and 1"), again),
        DataFault::BadIdx(what) => (what.clone(), "check that this is an IDX file of bytes"),
    }
}

// %% notebooks/01_foundations.ipynb app-data-error
use std::path::{Path, PathBuf};

/// A data file that cannot be used: which, where in it, and why.
#[derive(Debug)]
pub struct DataError {
    /// The file.
    pub path: PathBuf,
    /// The place in the file: a byte offset, or a part such as "labels of train".
    pub place: String,
    /// What is wrong there.
    pub fault: DataFault,
}

fn data_error(path: &Path, place: impl Into<String>, fault: DataFault) -> DataError {
    DataError { path: path.to_path_buf(), place: place.into(), fault }
}

impl error::Error for DataError {}

impl fmt::Display for DataError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (what, remedy) = describe_fault(&self.fault);
        write!(f, "{}, {}: {what}; {remedy}", self.path.display(), self.place)
    }
}

// %% notebooks/01_foundations.ipynb app-gzip-fault
fn gzip_fault(error: io::Error) -> DataFault {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => DataFault::CutShort,
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => DataFault::Damaged(error.to_string()),
        _ => DataFault::Io(error),
    }
}

// %% notebooks/01_foundations.ipynb app-gunzip
use flate2::bufread::MultiGzDecoder;
use std::fs::File;
use std::io::{BufReader, Read};

/// A stream of unpacked bytes, made by [`gunzip`]; its errors are [`DataError`]s inside [`io::Error`]s.
#[derive(Debug)]
pub struct Gunzip<R: Read> {
    unpacker: MultiGzDecoder<BufReader<R>>,
    path: PathBuf,
    count: u64,
    limit: u64,
}

impl<R: Read> Read for Gunzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.unpacker.read(buffer) {
            Ok(got) if self.count + got as u64 > self.limit => {
                Err(self.fail(DataFault::PastLimit(self.limit)))
            }
            Ok(got) => {
                self.count += got as u64;
                Ok(got)
            }
            Err(error) => Err(self.fail(gzip_fault(error))),
        }
    }
}

impl<R: Read> Gunzip<R> {
    fn fail(&self, fault: DataFault) -> io::Error {
        io::Error::other(data_error(&self.path, format!("unpacked byte {}", self.count), fault))
    }
}

// %% notebooks/01_foundations.ipynb app-gunzip-from
use std::io::BufRead;

/// Unpacks anything that can be read, to at most `limit` bytes; `path` is what errors call it.
///
/// # Errors
/// As for [`gunzip`].
pub fn gunzip_from<R: Read>(packed: R, path: &Path, limit: u64) -> Result<Gunzip<R>, DataError> {
    let mut packed = BufReader::with_capacity(1 << 18, packed);
    match packed.fill_buf() {
        Err(error) => Err(data_error(path, "byte 0", DataFault::Io(error))),
        Ok([0x1f, 0x8b, ..]) => {
            Ok(Gunzip { unpacker: MultiGzDecoder::new(packed), path: path.to_path_buf(), count: 0, limit })
        }
        Ok([] | [0x1f]) => Err(data_error(path, "byte 0", DataFault::CutShort)),
        Ok(_) => Err(data_error(path, "byte 0", DataFault::NotGzip)),
    }
}

// %% notebooks/01_foundations.ipynb app-gunzip-open
/// Opens a gzip file to be read unpacked, with at most `limit` bytes coming out.
///
/// # Errors
/// When the file cannot be opened or does not begin as a gzip file; later, while reading, when it is damaged,
/// cut short or larger than the limit: then the [`io::Error`] carries a [`DataError`].
pub fn gunzip(path: &Path, limit: u64) -> Result<Gunzip<File>, DataError> {
    let fail = |error| data_error(path, "opening", DataFault::Io(error));
    gunzip_from(File::open(path).map_err(fail)?, path, limit)
}

// %% notebooks/01_foundations.ipynb app-op-types
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

// %% notebooks/01_foundations.ipynb app-op-kinds
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

// %% notebooks/01_foundations.ipynb app-op-steps
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

// %% notebooks/01_foundations.ipynb app-ops
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

// %% notebooks/01_foundations.ipynb app-scan
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

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

// %% notebooks/01_foundations.ipynb app-scan-machine
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

// %% notebooks/01_foundations.ipynb app-scan-push
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

// %% notebooks/01_foundations.ipynb app-scan-take
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

// %% notebooks/01_foundations.ipynb app-containers
fn pickle_gather(scan: &mut PickleScan, kind: PickleKind, count: Option<usize>) -> Result<(), DataFault> {
    let parts = take_items(scan, count)?;
    let depth = 1 + parts.iter().map(|part| part.depth).max().unwrap_or(0);
    let weight = PICKLE_VALUE_COST + parts.iter().map(|part| part.weight).sum::<u64>();
    let text = parts.first().and_then(|part| part.text.clone()); // for the arguments of numpy.dtype
    push_item(scan, PickleItem { kind, depth, weight, text, memo: None }, PICKLE_VALUE_COST)
}

// %% notebooks/01_foundations.ipynb app-extend
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

// %% notebooks/01_foundations.ipynb app-memo
fn memo_id(code: u8, operand: &[u8], next: usize) -> Result<u32, DataFault> {
    let id = match (code, operand) {
        (b'p' | b'g', line) => str::from_utf8(line).ok().and_then(|line| line.lines().next()?.parse().ok()),
        (_, []) => u32::try_from(next).ok(),
        (_, [byte]) => Some(u32::from(*byte)),
        (_, bytes) => bytes.try_into().ok().map(u32::from_le_bytes),
    };
    id.ok_or_else(|| DataFault::BadPickle("a memo number that is none".into()))
}

// %% notebooks/01_foundations.ipynb app-memo-put
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

// %% notebooks/01_foundations.ipynb app-names
const PICKLE_NAMES: [&str; 4] = [
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

// %% notebooks/01_foundations.ipynb app-names-from-stack
fn push_name_from_stack(scan: &mut PickleScan) -> Result<(), DataFault> {
    let name = take_one(scan, Some(PickleKind::Text))?.text;
    let module = take_one(scan, Some(PickleKind::Text))?.text;
    match (module, name) {
        (Some(module), Some(name)) => push_name(scan, &module, &name),
        _ => Err(DataFault::ForbiddenName("something that cannot be read".into())),
    }
}

// %% notebooks/01_foundations.ipynb app-step
fn pickle_call(scan: &mut PickleScan) -> Result<(), DataFault> {
    let arguments = take_one(scan, Some(PickleKind::Tuple))?;
    let callee = take_one(scan, Some(PickleKind::Name))?;
    if callee.text.as_deref() == Some("numpy.dtype") {
        scan.dtypes.push(arguments.text.as_deref().unwrap_or("?").to_owned());
    }
    let weight = PICKLE_VALUE_COST;
    let result = PickleItem { kind: PickleKind::Name, depth: 1, weight, text: None, memo: None };
    push_item(scan, result, arguments.weight) // serde-pickle may copy the arguments to look at them
}

// %% notebooks/01_foundations.ipynb app-push-value
fn push_value(scan: &mut PickleScan, kind: PickleKind, length: u64, kept: &[u8]) -> Result<(), DataFault> {
    let whole = length <= kept.len() as u64;
    let text = str::from_utf8(kept).ok().filter(|_| whole && kept.len() < 256).map(Rc::from);
    let weight = PICKLE_VALUE_COST.saturating_add(length);
    push_item(scan, PickleItem { kind, depth: 1, weight, text, memo: None }, weight)
}

// %% notebooks/01_foundations.ipynb app-do-step
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

// %% notebooks/01_foundations.ipynb app-end-instruction
fn end_instruction(scan: &mut PickleScan, code: u8, step: PickleStep, length: u64) -> Result<(), DataFault> {
    scan.wait = PickleWait::Instruction;
    let kept = std::mem::take(&mut scan.kept);
    do_step(scan, code, step, length, &kept)
}

// %% notebooks/01_foundations.ipynb app-feed-content
fn begin_content(scan: &mut PickleScan, code: u8, step: PickleStep, length: u64) -> Result<(), DataFault> {
    if length > scan.limit {
        return Err(DataFault::PastLimit(scan.limit));
    }
    scan.kept.clear();
    scan.wait = PickleWait::Content { code, step, length, left: length };
    if length == 0 { end_instruction(scan, code, step, 0) } else { Ok(()) }
}

// %% notebooks/01_foundations.ipynb app-operand
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

// %% notebooks/01_foundations.ipynb app-feed-operand
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

// %% notebooks/01_foundations.ipynb app-feed
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

// %% notebooks/01_foundations.ipynb app-guard
/// Passes a pickle through to its reader and stops it at the first instruction that is not harmless:
/// a forbidden name, too deep a nesting, more than `limit` bytes of values, an instruction no array needs.
/// Its errors are [`DataError`]s inside [`io::Error`]s.
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

// %% notebooks/01_foundations.ipynb app-guard-pass
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

// %% notebooks/01_foundations.ipynb app-array-state
use serde_pickle::{DeOptions, Value};

fn parts_of<const N: usize>(value: Value, path: &Path, place: &str) -> Result<[Value; N], DataError> {
    let wrong = || data_error(path, place, DataFault::Structure(format!("not a tuple of {N}")));
    match value {
        Value::Tuple(parts) => parts.try_into().map_err(|_| wrong()),
        _ => Err(wrong()),
    }
}

// %% notebooks/01_foundations.ipynb app-array-helpers
fn pickled_size(value: &Value) -> Option<usize> {
    match value {
        Value::I64(n) => usize::try_from(*n).ok(),
        _ => None,
    }
}

/// Whether a dtype's state, (3, byte order, …), says so. One that was pickled before arrives as `None`.
fn is_big_endian(dtype: &Value) -> bool {
    match dtype {
        Value::Tuple(state) => match state.get(1) {
            Some(Value::Bytes(order)) => order == b">",
            Some(Value::String(order)) => order == ">",
            _ => false,
        },
        _ => false,
    }
}

// %% notebooks/01_foundations.ipynb app-array-parts
/// The shape and the bytes of a pickled numpy array whose elements have `size` bytes.
fn array_parts(
    value: Value,
    size: usize,
    path: &Path,
    place: &str,
) -> Result<(Vec<usize>, Vec<u8>), DataError> {
    let wrong = |what: String| data_error(path, place, DataFault::Structure(what));
    let [_version, shape, dtype, fortran, bytes] = parts_of(value, path, place)?;
    let (Value::Tuple(shape), Value::Bool(false), Value::Bytes(bytes)) = (shape, fortran, bytes) else {
        return Err(wrong("not the state of a numpy array in C order".into()));
    };
    if is_big_endian(&dtype) {
        return Err(wrong("elements with the highest byte first".into()));
    }
    let shape: Option<Vec<usize>> = shape.iter().map(pickled_size).collect();
    let shape = shape.ok_or_else(|| wrong("a shape that is no list of sizes".into()))?;
    let needs = shape.iter().try_fold(size, |bytes, &n| bytes.checked_mul(n));
    if needs != Some(bytes.len()) {
        return Err(wrong(format!("shape {shape:?} does not match {} bytes of {size} each", bytes.len())));
    }
    Ok((shape, bytes))
}

// %% notebooks/01_foundations.ipynb app-floats
/// Little-endian bytes as `f32`, in hardly more memory than the bytes already take.
pub fn floats_from_bytes(mut bytes: Vec<u8>) -> Vec<f32> {
    let mut floats = vec![0.0; bytes.len() / 4];
    for block in floats.chunks_mut(1 << 22).rev() {
        let start = bytes.len() - 4 * block.len();
        for (float, four) in block.iter_mut().zip(bytes[start..].as_chunks().0) {
            *float = f32::from_le_bytes(*four);
        }
        bytes.truncate(start);
        bytes.shrink_to_fit();
    }
    floats
}

// %% notebooks/01_foundations.ipynb app-checks
use ndarray::{Array1, Array2};

fn check_labels(labels: &Array1<i64>, path: &Path, place: &str) -> Result<(), DataError> {
    match labels.iter().enumerate().find(|(_, label)| !(0..10).contains(*label)) {
        Some((at, &label)) => {
            Err(data_error(path, format!("{place}, number {at}"), DataFault::BadLabel(label)))
        }
        None => Ok(()),
    }
}

// %% notebooks/01_foundations.ipynb app-check-pixels
fn check_pixels(pixels: &[f32], path: &Path, place: &str) -> Result<(), DataError> {
    // Asking all of a block at once lets the compiler use SIMD; `position` alone is several times slower.
    let good = |pixel: &f32| (0.0..=1.0).contains(pixel);
    let block = pixels.chunks(784).position(|row| row.iter().fold(false, |bad, pixel| bad | !good(pixel)));
    let Some(row) = block else { return Ok(()) };
    let column = pixels[784 * row..].iter().position(|pixel| !good(pixel)).unwrap_or(0);
    let fault = DataFault::BadPixel(pixels[784 * row + column]);
    Err(data_error(path, format!("{place}, number {row}, pixel {column}"), fault))
}

// %% notebooks/01_foundations.ipynb app-split
/// Images, one row of 784 pixels from 0 (paper) to 1 (ink) each, and their labels: (n, 784) and (n,).
pub type Split = (Array2<f32>, Array1<i64>);

fn split_from(value: Value, path: &Path, name: &str) -> Result<Split, DataError> {
    let [images, labels] = parts_of(value, path, name)?;
    let (x_place, y_place) = (format!("images of {name}"), format!("labels of {name}"));
    let (x_shape, pixels) = array_parts(images, 4, path, &x_place)?;
    let (y_shape, labels) = array_parts(labels, 8, path, &y_place)?;
    let (&[n, 784], &[m]) = (x_shape.as_slice(), y_shape.as_slice()) else {
        let what = format!("shapes {x_shape:?} and {y_shape:?} where (n, 784) and (n,) belong");
        return Err(data_error(path, name, DataFault::Structure(what)));
    };
    if n != m || n == 0 {
        let what = format!("{n} images and {m} labels");
        return Err(data_error(path, name, DataFault::Structure(what)));
    }
    let labels = labels.as_chunks().0.iter().map(|eight| i64::from_le_bytes(*eight)).collect();
    let pixels = floats_from_bytes(pixels);
    check_pixels(&pixels, path, &x_place)?;
    check_labels(&labels, path, &y_place)?;
    let images = Array2::from_shape_vec((n, 784), pixels).expect("the number of bytes was checked");
    Ok((images, labels))
}

// %% notebooks/01_foundations.ipynb app-unpickle-error
fn unpickle_error(error: serde_pickle::Error, path: &Path) -> DataError {
    let broken = |what: String, place: String| {
        data_error(path, place, DataFault::BadPickle(what.chars().take(200).collect()))
    };
    match error {
        serde_pickle::Error::Io(error) => match error.downcast::<DataError>() {
            Ok(ours) => ours,
            Err(error) => data_error(path, "reading", DataFault::Io(error)),
        },
        serde_pickle::Error::Eval(what, at) => broken(what.to_string(), format!("byte {at} of the pickle")),
        serde_pickle::Error::Syntax(what) => broken(what.to_string(), "the pickle".into()),
    }
}

// %% notebooks/01_foundations.ipynb app-load-pickle
/// What `mnist.pkl.gz` holds: (train, valid, test), each images and labels.
pub type MnistSplits = (Split, Split, Split);

const MNIST_LIMIT: u64 = 256 << 20;

/// Reads the course's MNIST data from an unpacked pickle, wherever it comes from; `path` is what errors call it.
///
/// # Errors
/// As for [`load_mnist`].
pub fn read_mnist_pickle(pickle: impl Read, path: &Path) -> Result<MnistSplits, DataError> {
    let mut guard = PickleGuard::new(pickle, path, MNIST_LIMIT);
    let options = DeOptions::new().replace_unresolved_globals();
    let value = serde_pickle::value_from_reader(&mut guard, options);
    let value = value.map_err(|error| unpickle_error(error, path))?;
    if guard.dtypes() != ["f4", "i8"] {
        let found = guard.dtypes();
        let what = format!("elements of types {found:?} where f4 and i8 belong");
        return Err(data_error(path, "the arrays", DataFault::Structure(what)));
    }
    let [train, valid, test] = parts_of(value, path, "the whole")?;
    let split = |value, name| split_from(value, path, name);
    Ok((split(train, "train")?, split(valid, "valid")?, split(test, "test")?))
}

// %% notebooks/01_foundations.ipynb app-load
/// Reads the course's MNIST file, `((x_train, y_train), (x_valid, y_valid), (x_test, y_test))` as a gzipped pickle.
///
/// # Errors
/// When the file is missing, damaged, hostile, or of another content; never half of it.
pub fn load_mnist(path: &Path) -> Result<MnistSplits, DataError> {
    read_mnist_pickle(gunzip(path, MNIST_LIMIT)?, path)
}

// %% notebooks/01_foundations.ipynb app-find
use std::env;

/// The course's folder `data`: the first one that holds the sample, looking upwards from the current folder.
pub fn data_folder() -> Option<PathBuf> {
    let start = env::current_dir().ok()?;
    let folders = start.ancestors().map(|folder| folder.join("data"));
    folders.into_iter().find(|folder| folder.join("mnist_sample.pkl.gz").is_file())
}

// %% notebooks/01_foundations.ipynb app-find-mnist-in
/// The MNIST file in the first of these folders that has it: the full one, or the sample.
///
/// # Errors
/// As for [`find_mnist`].
pub fn find_mnist_in(folders: &[PathBuf], full: bool) -> Result<PathBuf, DataError> {
    let (name, remedy) = match full {
        true => ("mnist.pkl.gz", "run lesson 1, which fetches it, or name its folder in MINAI_DATA"),
        false => ("mnist_sample.pkl.gz", "it is in the course's repository: name that folder in MINAI_DATA"),
    };
    let found = folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
    let missing = || data_error(Path::new(name), format!("in {folders:?}"), DataFault::Missing(remedy));
    found.ok_or_else(missing)
}

// %% notebooks/01_foundations.ipynb app-find-mnist
/// The MNIST file to use: the sample, or the full file if the environment says `MINAI_FULL=1`.
/// The full file is looked for in the folder `MINAI_DATA` and in [`data_folder`].
///
/// # Errors
/// When there is none: the error names the place and says how to get it.
pub fn find_mnist() -> Result<PathBuf, DataError> {
    let full = env::var("MINAI_FULL").is_ok_and(|wish| !["", "0"].contains(&wish.as_str()));
    let own = env::var_os("MINAI_DATA").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let folders: Vec<PathBuf> = own.into_iter().chain(data_folder()).collect();
    find_mnist_in(&folders, full)
}

// %% notebooks/01_foundations.ipynb app-idx-end
fn check_idx_end(idx: &mut impl Read, got: u64, count: u64, path: &Path) -> Result<(), DataError> {
    if got < count {
        return Err(data_error(path, format!("element {got} of {count}"), DataFault::CutShort));
    }
    match idx.read(&mut [0]) {
        Ok(0) => Ok(()),
        Ok(_) => {
            Err(data_error(path, "end", DataFault::BadIdx(format!("goes on after its {count} elements"))))
        }
        Err(error) => Err(read_error(error, path)),
    }
}

fn read_error(error: io::Error, path: &Path) -> DataError {
    match error.downcast::<DataError>() {
        Ok(ours) => ours,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            data_error(path, "header", DataFault::CutShort)
        }
        Err(error) => data_error(path, "reading", DataFault::Io(error)),
    }
}

// %% notebooks/01_foundations.ipynb app-idx-shape
fn idx_shape(idx: &mut impl Read, path: &Path) -> Result<Vec<usize>, DataError> {
    let mut magic = [0; 4];
    idx.read_exact(&mut magic).map_err(|error| read_error(error, path))?;
    let [0, 0, 8, rank] = magic else {
        let what = format!("begins with {magic:02x?} where [00, 00, 08, rank] belongs");
        return Err(data_error(path, "byte 0", DataFault::BadIdx(what)));
    };
    let mut sizes = vec![0; 4 * usize::from(rank)];
    idx.read_exact(&mut sizes).map_err(|error| read_error(error, path))?;
    Ok(sizes.as_chunks().0.iter().map(|four| u32::from_be_bytes(*four) as usize).collect())
}

// %% notebooks/01_foundations.ipynb app-idx-from
use ndarray::ArrayD;

/// The most elements that [`read_idx`] takes.
pub const IDX_LIMIT: u64 = 1 << 30;

/// Reads IDX from unpacked bytes, wherever they come from; `path` is what errors call it.
///
/// # Errors
/// As for [`read_idx`].
pub fn read_idx_from(mut idx: impl Read, path: &Path) -> Result<ArrayD<u8>, DataError> {
    let shape = idx_shape(&mut idx, path)?;
    let count = shape.iter().try_fold(1_u64, |count, &size| count.checked_mul(size as u64));
    let bad = |what: String| data_error(path, "header", DataFault::BadIdx(what));
    let Some(count) = count.filter(|&count| count <= IDX_LIMIT) else {
        return Err(bad(format!("sizes {shape:?} are more than {IDX_LIMIT} elements")));
    };
    let mut elements = Vec::new();
    idx.by_ref().take(count).read_to_end(&mut elements).map_err(|error| read_error(error, path))?;
    check_idx_end(&mut idx, elements.len() as u64, count, path)?;
    ArrayD::from_shape_vec(shape, elements).map_err(|error| bad(error.to_string()))
}

// %% notebooks/01_foundations.ipynb app-idx
/// Reads an IDX file of bytes, of any rank, gzipped or not.
///
/// # Errors
/// When the file cannot be read, is no IDX file of bytes, or does not hold exactly what its header promises.
pub fn read_idx(path: &Path) -> Result<ArrayD<u8>, DataError> {
    let open = |error| data_error(path, "opening", DataFault::Io(error));
    let mut file = BufReader::with_capacity(1 << 18, File::open(path).map_err(open)?);
    if file.fill_buf().map_err(open)?.starts_with(&[0x1f, 0x8b]) {
        read_idx_from(gunzip_from(file, path, IDX_LIMIT + 2048)?, path)
    } else {
        read_idx_from(file, path)
    }
}

// %% notebooks/01_foundations.ipynb app-idx-pair
/// Reads a pair of IDX files: images of any shape (n, …) and their labels (n,), each a digit from 0 to 9.
///
/// # Errors
/// As for [`read_idx`], and when the two do not belong together.
pub fn load_idx_pair(images: &Path, labels: &Path) -> Result<(ArrayD<u8>, Array1<i64>), DataError> {
    let (x, y) = (read_idx(images)?, read_idx(labels)?);
    let wrong = |what: String| data_error(labels, "header", DataFault::Structure(what));
    if y.ndim() != 1 || x.ndim() == 0 || x.shape()[0] != y.len() {
        return Err(wrong(format!("labels of shape {:?} for images of shape {:?}", y.shape(), x.shape())));
    }
    let y = y.iter().map(|&label| i64::from(label)).collect();
    check_labels(&y, labels, "labels")?;
    Ok((x, y))
}

"""The kernel through Jupyter's protocol: python nbs_export/tests/protocol.py

First Jupyter's own test of kernels, with every sample set; then what a reader of IPython expects.

It needs jupyter_kernel_test from PyPI and the kernel that `cargo nbs kernel install` has made in this folder.
"""

import os
import pathlib
import sys
import threading
import time
import unittest
import unittest.mock

import jupyter_kernel_test
from jupyter_client.manager import start_new_kernel

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
os.environ["JUPYTER_PATH"] = os.path.join(ROOT, ".minai", "jupyter")


class RustKernel(jupyter_kernel_test.KernelTests):
    kernel_name = "minai"
    language_name = "rust"
    file_extension = ".rs"

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # The tests wait fifteen seconds for an answer, which a busy machine may need for the kernel's start.
        cls.kc.execute_interactive("1", timeout=300, output_hook=lambda message: None)

    code_hello_world = 'println!("hello, world")'
    code_stderr = 'eprintln!("oops")'
    code_execute_result = [
        {"code": "1 + 2", "result": "3"},
        {"code": "let a = vec![1, 2];\na", "result": "[1, 2]"},
    ]
    code_display_data = [
        {
            "code": 'println!("EVCXR_BEGIN_CONTENT text/html\\n<b>x</b>\\nEVCXR_END_CONTENT"); println!();',
            "mime": "text/html",
        }
    ]
    code_clear_output = 'println!("\\u{1e}minai-display {{\\"op\\":\\"clear\\",\\"wait\\":false}}");'
    code_generate_error = 'panic!("boom")'
    code_page_something = "?minai::iter::chunks"
    code_inspect_sample = "minai::iter::chunks"
    code_history_pattern = "1 ? 2*"
    supported_history_operations = ("tail", "range", "search")

    completion_samples = [
        {"text": "minai::iter::chu", "matches": {"chunks(items, size)"}},
        {"text": "%time", "matches": {"time", "timeit"}},
    ]
    complete_code_samples = ["1 + 2", "fn f() {\n    g()\n}", "let a = 1;", "%who", ""]
    incomplete_code_samples = ["fn f() {", "f(1,", 'let s = "abc', "/* open"]
    invalid_code_samples = ["let let = 1;", "fn 1() {}"]


class Cell:
    """What came of executing a cell."""

    def __init__(self, reply, messages):
        self.reply = reply
        self.status = reply["status"]
        self.messages = messages

    def of(self, kind):
        return [content for at, k, content in self.messages if k == kind]

    def stream(self, name="stdout"):
        return "".join(c["text"] for c in self.of("stream") if c["name"] == name)

    @property
    def result(self):
        results = self.of("execute_result")
        return results[0]["data"]["text/plain"] if results else None

    @property
    def trace(self):
        return "\n".join(self.reply.get("traceback", []))


class Expectations(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = os.path.join(ROOT, "notebooks")
        cls.manager, cls.client = start_new_kernel(kernel_name="minai", startup_timeout=300, cwd=folder)
        cls.run_cell("1")

    @classmethod
    def tearDownClass(cls):
        cls.client.stop_channels()
        cls.manager.shutdown_kernel(now=True)

    @classmethod
    def run_cell(cls, code, answer=None, **options):
        start = time.time()
        options.setdefault("allow_stdin", answer is not None)
        request = cls.client.execute(code, **options)
        messages = []
        while True:
            if answer is not None:
                try:
                    asked = cls.client.get_stdin_msg(timeout=0.05)
                    messages.append((time.time() - start, "input_request", asked["content"]))
                    cls.client.input(answer)
                except Exception:
                    pass
            try:
                message = cls.client.get_iopub_msg(timeout=0.05 if answer is not None else 120)
            except Exception:
                if answer is not None and time.time() - start < 120:
                    continue
                raise
            if message["parent_header"].get("msg_id") != request:
                continue
            if message["content"].get("execution_state") == "idle":
                break
            messages.append((time.time() - start, message["msg_type"], message["content"]))
        while True:
            reply = cls.client.get_shell_msg(timeout=120)
            if reply["parent_header"].get("msg_id") == request:
                return Cell(reply["content"], messages)

    def ask(self, send):
        request = send()
        while True:
            reply = self.client.get_shell_msg(timeout=60)
            if reply["parent_header"].get("msg_id") == request:
                return reply["content"]

    def failed(self, code, name, *texts, **options):
        cell = self.run_cell(code, **options)
        self.assertEqual((cell.status, cell.reply.get("ename")), ("error", name), cell.reply)
        self.assertEqual(len(cell.of("error")), 1)
        for text in texts:
            self.assertIn(text, cell.trace + cell.reply["evalue"])
        self.assertNotIn("src/lib.rs", cell.trace)
        return cell

    def test_panic_is_an_error_with_its_line(self):
        self.run_cell("let before = 7;")
        self.failed("let v = vec![1];\nlet n = v.len();\nv[n]", "Panic", "the len is 1 but the index is 1", "line 3")
        self.assertEqual(self.run_cell("before").result, "7")

    def test_panic_in_an_older_function_names_both_cells(self):
        older = self.run_cell("fn older(n: usize) -> i32 {\n    [1, 2][n]\n}")
        cell = self.failed("let a = std::hint::black_box(5);\nlet b = older(a);\nb", "Panic", "line 2: let b = older(a);")
        self.assertIn(f"cell [{older.reply['execution_count']}], line 2", cell.trace)

    def test_panic_that_is_caught_is_told(self):
        cell = self.run_cell("std::panic::catch_unwind(|| panic!(\"boom\")).is_err()")
        self.assertEqual((cell.status, cell.result), ("ok", "true"))
        self.assertIn("boom", cell.stream("stderr"))

    def test_failing_question_mark(self):
        cell = self.failed('let n: u32 = "a".parse()?;', "Error", "invalid digit", "line 1")
        self.assertEqual(cell.stream("stderr"), "", "the message is not doubled")

    def test_exit_abort_and_overflow(self):
        self.run_cell("let lost_one = 1;")
        self.failed("std::process::exit(3)", "Exit", "exit status: 3", "lost_one")
        self.failed("std::process::abort()", "Abort", "SIGABRT")
        code = "fn deep(n: &[u8; 999]) -> u8 { let m = std::hint::black_box(*n); deep(&m) + m[3] }\nlet d = deep(&[0; 999]);"
        self.failed(code, "StackOverflow", "line 1")
        self.assertEqual(self.run_cell("1 + 1").result, "2")

    def test_compile_error_in_rustcs_words(self):
        cell = self.failed('let a = 1;\nlet n: u32 = "a";', "Error", "E0308", "line 2", "expected `u32`")
        self.assertEqual(cell.trace.count("mismatched types"), 1)
        many = "\n".join(f"let x{i}: u32 = \"a\";" for i in range(9))
        self.failed(many, "Error", "4 more errors")

    def test_moved_variable(self):
        self.run_cell('let gone = String::from("x");')
        self.run_cell('let other = gone + "y";')
        self.failed("gone", "Error", "was moved in cell", 'let other = gone + "y";', "gone.clone()")

    def test_changed_function_names_the_older_item(self):
        self.run_cell("fn once() -> i32 { 1 }\nfn twice() -> i32 { 2 * once() }")
        self.failed("fn once() -> f32 { 1.0 }", "Error", "`twice` of cell")

    def test_changed_type(self):
        self.run_cell("#[derive(Clone, Copy)]\nstruct P { a: i32 }\nlet p = P { a: 1 };\nlet ps = vec![p];")
        cell = self.run_cell("struct P { a: i32, b: f64 }\nlet p = P { a: 1, b: 2.5 };")
        self.assertEqual(cell.status, "ok")
        self.assertIn("`ps` is gone", cell.stream("stderr"))
        self.assertEqual(self.run_cell("p.b").result, "2.5")
        self.failed("ps.len()", "Error", "cannot find value")

    def test_nothing_is_shown_for_nothing(self):
        for code in ["()", "for i in 0..2 { let _ = i; }", "let quiet = 1;", "if true { let _ = 1; }"]:
            cell = self.run_cell(code)
            self.assertEqual((cell.status, cell.messages[2:]), ("ok", []), code)

    def test_results(self):
        for code, result in [('"a"', '"a"'), ("vec![Some(1)]", "[Some(1)]"), ("1.5_f32", "1.5")]:
            self.assertEqual(self.run_cell(code).result, result)

    def test_a_last_expression_that_moves_a_variable_is_shown_as_its_type_wishes(self):
        show = 'println!("EVCXR_BEGIN_CONTENT text/html\\n<i>{}</i>\\nEVCXR_END_CONTENT", self.0);'
        self.run_cell(f"#[derive(Debug)]\nstruct Own(String);\nimpl Own {{ fn evcxr_display(&self) {{ {show} }} }}")
        cell = self.run_cell('let text = String::from("moved");\nOwn(text)')
        shown = [m["data"] for kind in ("execute_result", "display_data") for m in cell.of(kind)]
        self.assertEqual([d.get("text/html") for d in shown], ["<i>moved</i>"], cell.messages)
        self.assertEqual(self.run_cell("let list = vec![1];\nlist.into_iter().collect::<Vec<i32>>()").result, "[1]")

    def test_output_comes_as_it_is_printed(self):
        code = 'for i in 0..3 { print!("{i}"); std::thread::sleep(std::time::Duration::from_millis(400)); }'
        cell = self.run_cell(code)
        times = [at for at, kind, _ in cell.messages if kind == "stream"]
        self.assertEqual(cell.stream(), "012")
        self.assertGreater(times[-1] - times[0], 0.5)
        self.assertEqual(self.run_cell('print!("here")').stream(), "here")

    def test_long_output_is_cut(self):
        cell = self.run_cell('for i in 0..30000 { println!("line {i}"); }')
        self.assertLess(len(cell.stream()), 400_000)
        self.assertIn("not shown", cell.stream("stderr"))
        self.assertEqual(self.run_cell("1").result, "1")

    def test_displays_change_in_place(self):
        mark = 'println!("\\u{{1e}}minai-display {{}}", r#"{}"#);'
        show = mark.format('{"op":"display","id":"a","data":{"text/plain":"0 %"}}')
        update = mark.format('{"op":"update","id":"a","data":{"text/plain":"100 %"}}')
        cell = self.run_cell(f"{show}\nstd::thread::sleep(std::time::Duration::from_millis(300));\n{update}")
        self.assertEqual(cell.of("display_data")[0]["transient"], {"display_id": "a"})
        self.assertEqual(cell.of("update_display_data")[0]["data"], {"text/plain": "100 %"})

    def test_input(self):
        code = 'print!("name? ");\nlet mut line = String::new();\nstd::io::stdin().read_line(&mut line)?;\nline'
        cell = self.run_cell(code, answer="Ada")
        self.assertEqual(cell.of("input_request"), [{"prompt": "name? ", "password": False}])
        self.assertEqual(cell.result, '"Ada\\n"')
        self.failed(code, "NoInput", "line of input")

    def interrupt_after(self, *seconds):
        for s in seconds:
            threading.Timer(s, self.manager.interrupt_kernel).start()

    def test_interrupt_that_is_looked_at_keeps_variables(self):
        self.run_cell("let kept = 5;")
        self.interrupt_after(1.5)
        code = "while !minai::io::interrupt::requested() { std::thread::sleep(std::time::Duration::from_millis(10)); }"
        self.failed(code, "Interrupted", "all variables are there")
        self.assertEqual(self.run_cell("kept").result, "5")
        self.assertEqual(self.run_cell("minai::io::interrupt::requested()").result, "false")

    def test_interrupt_that_was_seen_waits_for_the_last_step(self):
        self.run_cell("let calm = 5;")
        self.interrupt_after(1.5)
        code = """use std::{thread::sleep, time::Duration};
while !minai::io::interrupt::requested() { sleep(Duration::from_millis(10)); }
sleep(Duration::from_secs(6));"""
        self.failed(code, "Interrupted", "all variables are there")
        self.assertEqual(self.run_cell("calm").result, "5")

    def test_second_interrupt_ends_the_process(self):
        self.run_cell("let unlucky = 5;")
        self.interrupt_after(1.5, 2.5)
        start = time.time()
        self.failed("loop { std::hint::black_box(1); }", "Interrupted", "unlucky")
        self.assertLess(time.time() - start, 10)
        self.assertEqual(self.run_cell("1 + 2").result, "3")

    def test_failure_stops_what_follows(self):
        requests = [self.client.execute(code) for code in ["panic!()", "1", "2"]]
        replies = {}
        while len(replies) < 3:
            reply = self.client.get_shell_msg(timeout=60)
            replies[reply["parent_header"]["msg_id"]] = reply["content"]["status"]
        self.assertEqual([replies[r] for r in requests], ["error", "aborted", "aborted"])
        self.assertEqual(self.run_cell("3").result, "3")

    def test_counts_silence_and_history(self):
        first = self.run_cell("10").reply["execution_count"]
        self.assertEqual(self.run_cell("11", silent=True).messages, [(unittest.mock.ANY, "status", unittest.mock.ANY)])
        self.assertEqual(self.run_cell("12", store_history=False).reply["execution_count"], first)
        self.assertEqual(self.run_cell("13").reply["execution_count"], first + 1)

    def test_magics(self):
        self.assertRegex(self.run_cell("%timeit 1 + 1").stream(), r"per loop \(mean ± std\. dev\. of \d+ runs?, [\d,]+ loops")
        self.assertRegex(self.run_cell("%time let timed = 2 + 2;").stream(), r"Wall time: .*s\n")
        self.assertEqual(self.run_cell("timed").result, "4")
        cell = self.run_cell("%%time\nlet a = 2;\na")
        self.assertIn("Wall time", cell.stream())
        self.assertEqual(cell.result, "2")
        self.assertIn("timed  i32", self.run_cell("%whos").stream())
        self.assertEqual(self.run_cell("%env NBS_X=7\nstd::env::var(\"NBS_X\")?").result, '"7"')
        self.failed("%nonsense", "Error", "%nonsense", "%timeit")
        self.run_cell("%reset")
        self.failed("timed", "Error", "E0425")

    def test_cells_are_compiled_with_the_effort_that_they_are_worth(self):
        self.run_cell("fn total(n: u64) -> u64 { let mut s = 0; for i in 0..n { s += i ^ (s >> 3); } s }")
        self.assertEqual(self.run_cell("let calm = 5;\ntotal(3)").result, "3")
        self.assertEqual(self.run_cell("calm").result, "5")
        cells = list(pathlib.Path(ROOT, ".minai", "kernels").glob("*/cells"))
        self.assertTrue(any((c / "../incremental").is_dir() and (c / "../incremental-little").is_dir() for c in cells))
        texts = [(c / "src/lib.rs").read_text() for c in cells]
        self.assertTrue(any("fn take(&mut self, name" in t for t in texts), "the store of another evcxr: see store.rs")

    def test_shell(self):
        cell = self.run_cell("let n = 1;\n!echo out; echo err >&2; exit 3\nn")
        self.assertEqual((cell.stream(), cell.result), ("out\n", "1"))
        self.assertIn("err\nexit status 3", cell.stream("stderr"))
        self.assertEqual(self.run_cell("%%bash\necho a\necho b").stream(), "a\nb\n")
        self.assertTrue(self.run_cell("!echo $PATH").stream().find("cargo-home") < 0)

    def test_questions(self):
        self.run_cell("/// Twice `x`.\nfn documented(x: i32) -> i32 {\n    2 * x\n}")
        page = lambda code: self.run_cell(code).reply["payload"][0]["data"]["text/plain"]
        self.assertIn("Twice `x`.", page("?documented"))
        self.assertIn("2 * x", page("??documented"))
        self.assertIn("notebooks/01_foundations.ipynb", page("??minai::iter::chunks"))
        inspect = lambda code, at: self.ask(lambda: self.client.inspect(code, at))["data"]["text/plain"]
        self.assertIn("Twice `x`.", inspect("documented(1)", 4))
        self.assertIn("fn documented(x: i32)", inspect("documented(1, )", 14))
        self.assertIn("chunks", inspect("minai::iter::chunks", 15))

    def test_completion(self):
        self.run_cell("let completed_value = 1;")
        complete = lambda code, at=None: self.ask(lambda: self.client.complete(code, at if at is not None else len(code)))
        self.assertIn("completed_value", complete("completed_v")["matches"])
        inside = complete("completed_value", 6)
        self.assertEqual((inside["matches"], inside["cursor_start"], inside["cursor_end"]), (["completed_value"], 0, 15))
        modules = complete("use minai::")["matches"]
        self.assertTrue({"tensor", "iter"} <= {m.rstrip(":") for m in modules}, modules)
        self.assertEqual(modules, sorted(modules, key=str.lower))

    def test_dependencies(self):
        self.assertEqual(self.run_cell(':dep ndarray = "0.17"\nndarray::Array1::<f32>::zeros(2).len()').result, "2")
        self.failed(':dep ndarray = "0.15"', "Error", "0.15", "0.17")
        self.failed(':dep no-such-crate-at-all = "1"', "Error", ":offline 0")


if __name__ == "__main__":
    program = unittest.main(argv=sys.argv, exit=False, verbosity=2)
    result = program.result
    bad = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
    print(f"{result.testsRun - bad - len(result.skipped)} passed, {bad} failed, {len(result.skipped)} skipped")
    sys.exit(bool(bad or result.skipped))

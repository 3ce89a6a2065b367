"""Text to tree: what is accepted, and what is said about what isn't."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnc import syntax as tree
from attnc.diagnostics import AttncError, Diagnostic, Source
from attnc.parser import parse, parse_body, read
from attnc.syntax import dump


def marked(text: str) -> tuple[str, int, int]:
    """A text without its «…» mark, and the place that was marked."""
    start = text.index("«")
    text = text.replace("«", "", 1)
    end = text.index("»")
    return text.replace("»", "", 1), start, end


def only_error(text: str) -> Diagnostic:
    with pytest.raises(AttncError) as caught:
        parse(Source("t.attn", text))
    (found,) = caught.value.diagnostics
    return found


ERRORS = [
    ("pattern f() «{» attend causal", "syntax-error", "never closed", "add `}`"),
    ("pattern f() { attend window«(»3", "syntax-error", "never closed", "add `)`"),
    ("pattern f() { attend causal }«}»", "syntax-error", "closes nothing", "pattern name() {"),
    ("pattern f() { attend causal\n«pattern» g() { }", "syntax-error", "inside another", "`}`"),
    ("pattern f() { attend window(3 «}»", "syntax-error", "expected `)`", None),
    ("pattern f(x «=» 3) { attend all }", "syntax-error", "expected `:`", "`x: int = …`"),
    ("pattern f() { let a «==» 3 }", "syntax-error", "`==` compares", "`=`"),
    ("pattern f() { let a «:» int = 3 }", "syntax-error", "found `:`", "has no type"),
    ("pattern f() { attend where q «=» k }", "syntax-error", "does not compare", "`==`"),
    ("pattern f() { attend where k «=»< q }", "syntax-error", "`=<` is not an operator", "`<=`"),
    ("pattern f() { attend where q «=»> k }", "syntax-error", "`=>` is not an operator", "`>=`"),
    ("pattern f() { attend causal |«|» all }", "syntax-error", "`||`", "`or`"),
    ("pattern f() { attend causal &«&» all }", "syntax-error", "`&&`", "`and`"),
    ("pattern f() { attend where q *«*» 2 < k }", "syntax-error", "`**`", "multiply"),
    ("pattern f() { attend where (q < 3 «|» k < 2) }", "syntax-error", "not conditions", "`or`"),
    ("pattern f() { attend where «!»(q < k) }", "syntax-error", "not conditions", "`not`"),
    ("pattern f() { «window»(3) }", "syntax-error", "after `attend`", "attend window"),
    ("pattern f() { «atend» causal }", "unknown-item", "`atend`", "did you mean `attend`?"),
    ("pattern f() { attend all\n «requier» causal }", "unknown-item", "`requier`", "did you mean `require`?"),
    (
        "pattern f() { attend causal «route» x }",
        "reserved-word",
        "`route` is reserved for edges",
        "available",
    ),
    ("pattern f() { attend causal with score s «with» kernel x }", "syntax-error", "found `with`", None),
    ("pattern f() { attend causal «window»(3) }", "syntax-error", "operator is missing", "join relations"),
    ("pattern f() { attend (all «causal») }", "syntax-error", "operator is missing", "join relations"),
    ("pattern f() { attend all require edges <= n «2» }", "syntax-error", "operator is missing", None),
    ("pattern f(a: «3» = 2) { attend all }", "syntax-error", "expected a type", None),
    ("pattern f() { attend all «,» }", "syntax-error", "expected an operator, an item or `}`", None),
    ("pattern f() { attend window(3 «4») }", "syntax-error", "expected `,`", "separate"),
    ("pattern «let»() {}", "syntax-error", "cannot be a name", "another name"),
    ("pattern f(«where»: int) {}", "syntax-error", "cannot be a name", "another name"),
    ("pattern «3»() {}", "syntax-error", "expected a name", "start with a letter"),
    ("pattern f «{»}", "syntax-error", "expected `(`", "`()`"),
    ("pattern f() { require edges «<» 3 }", "syntax-error", "bounded by `<=`", "`edges <= …`"),
    ("pattern f() { attend causal + «}»", "syntax-error", "expected an expression after `+`", None),
    ("pattern f() { attend window(2, «}»", "syntax-error", "expected an expression after `,`", None),
    ("pattern f() { attend to(0«..»3) }", "syntax-error", "only after `heads`", "comparisons"),
    ("«let» x = 3", "syntax-error", "outside of any pattern", "braces"),
    ("«patern» f() {}", "syntax-error", "expected `pattern`", "did you mean `pattern`?"),
    ("«//» a comment", "syntax-error", "found `//`", "`#`"),
    ("«/*» a comment */ pattern f() { attend all }", "syntax-error", "found `/*`", "`#`"),
    ("pattern f() «/*» a comment */ { attend all }", "syntax-error", "expected `{`", "`#`"),
    ("pattern f() { attend all require causal «//» a comment\n}", "syntax-error", "found `//`", "`#`"),
    ("pattern f() { attend where q < k «?» 1 : 2 }", "bad-character", "`?`", "`select(C, a, b)`"),
    ("pattern f() { attend window«\uff08»3\uff09 }", "bad-character", "language", "write `(`"),
    ("pattern f() { attend same(«\u201c»x\u201d) }", "bad-character", "language", "leave the quotes out"),
    ("pattern f() { attend all «;» }", "bad-character", "`;`", "no separator"),
    ("pattern «é»() {}", "bad-character", "`é`", "ASCII"),
    ("pattern f() { attend«\N{NO-BREAK SPACE}»all }", "bad-character", "U+00A0", "ordinary space"),
    ("pattern f() { attend where q «≤» k }", "bad-character", "`≤`", "`<=`"),
    ("pattern f() { attend " + "(" * 199 + "«(»all" + ")" * 200 + " }", "too-deep", "200", "`let`"),
    ("pattern f() { attend " + "!" * 199 + "«!»all }", "too-deep", "200", "`let`"),
    ("# nothing«»", "empty-file", "no pattern", "pattern name()"),
]


@pytest.mark.parametrize(("text", "code", "message", "help"), ERRORS)
def test_errors_name_what_and_where_and_how_to_mend_it(text, code, message, help):
    text, start, end = marked(text)
    found = only_error(text)
    assert (found.code, found.span.start, found.span.end) == (code, start, end), found.message
    assert message in found.message
    if help is None:
        assert found.help is None
    elif help == "later":
        assert found.help is not None and "not available yet" in found.help
    else:
        assert found.help is not None and help in found.help


def test_a_missing_bracket_shows_where_it_was_opened():
    found = only_error("pattern f() { attend window(3 }")
    (label,) = found.secondary
    assert (label.span.start, label.text) == (27, "opened here")


def test_precedence_binds_complement_then_and_then_minus_then_or():
    file = parse(Source("t", "pattern f() { attend all | self - !causal & none | self }"))
    union = file.patterns[0].items[0].relation
    assert [operator.text for operator in union.operators] == ["|", "|"]
    difference = union.operands[1]
    assert [operator.text for operator in difference.operators] == ["-"]
    meet = difference.operands[1]
    assert [operator.text for operator in meet.operators] == ["&"]
    assert isinstance(meet.operands[0], tree.Prefix)


def test_a_condition_after_where_ends_at_the_operators_of_relations():
    file = parse(Source("t", "pattern f() { attend where q - k < 3 or k < 2 | causal & where not q == k }"))
    union = file.patterns[0].items[0].relation
    first, second = union.operands
    assert isinstance(first, tree.Where) and first.condition.operators[0].text == "or"
    assert [type(part) for part in second.operands] == [tree.Name, tree.Where]


def test_spans_cover_what_was_written():
    text = "pattern f(w: int = 8) { # w\r\n\tattend (window(w))\r\n}"
    (pattern,) = parse(Source("t", text)).patterns
    (attend,) = pattern.items
    assert text[pattern.span.start : pattern.span.end] == text
    assert text[attend.span.start : attend.span.end] == "attend (window(w))"
    assert text[attend.relation.span.start : attend.relation.span.end] == "(window(w))"


def test_chains_of_any_length_stay_flat():
    file = parse(Source("t", "pattern f() { attend " + " | ".join(["causal"] * 10_000) + " }"))
    assert len(file.patterns[0].items[0].relation.operands) == 10_000


def test_dump_shows_the_tree():
    text = "pattern f(w: int = 8) { heads 0..4 { attend window(w, right=1) } assume edges <= n }"
    assert dump(parse(Source("t.attn", text))).splitlines() == [
        "File t.attn",
        "  Pattern f @0:84",
        "    params: Parameter w int @10:20",
        "      default: Number 8 @19:20",
        "    items: Heads @24:64",
        "      selector: Range @30:34",
        "        first: Number 0 @30:31",
        "        last: Number 4 @33:34",
        "      items: Attend @37:62",
        "        relation: Call window @44:62",
        "          args: Argument @51:52",
        "            value: Name w @51:52",
        "          args: Argument right @54:61",
        "            value: Number 1 @60:61",
        "    items: Claim assumed=True edges @65:82",
        "      bound: Name n @81:82",
    ]


# --- files and docstrings -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"pattern f() { attend all } \xff", "not-text"),
        (b"pattern f()\0", "not-text"),
        (b"#" * ((1 << 20) + 1), "file-too-large"),
    ],
)
def test_files_that_are_no_patterns_are_refused(tmp_path, data, code):
    path = tmp_path / "p.attn"
    path.write_bytes(data)
    with pytest.raises(AttncError) as caught:
        read(path)
    assert [found.code for found in caught.value.diagnostics] == [code]
    assert str(path) in str(caught.value)


def test_a_missing_file_and_a_folder_are_reported_by_name(tmp_path):
    for path in (tmp_path / "absent.attn", tmp_path):
        with pytest.raises(AttncError, match="unreadable-file"):
            read(path)


def test_a_file_with_a_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "p.attn"
    path.write_bytes(b"\xef\xbb\xbfpattern f() { attend all }")
    assert parse(read(path)).patterns[0].name.text == "f"


def test_a_body_takes_its_header_from_python():
    source = Source("<docstring of f>", "\n    attend window(w)\n    require causal\n")
    file = parse_body(source, "f", (("w", "int", -8), ("flag", "bool", True), ("x", "float", None)), ("a",))
    (pattern,) = file.patterns
    assert pattern.name.text == "f" and file.listed == ("a",)
    assert [(param.name.text, param.kind.text) for param in pattern.params] == [
        ("w", "int"),
        ("flag", "bool"),
        ("x", "float"),
    ]
    assert isinstance(pattern.params[0].default, tree.Prefix) and pattern.params[2].default is None
    assert [type(item) for item in pattern.items] == [tree.Attend, tree.Claim]


def test_a_syntax_error_in_a_body_is_placed_in_the_docstring():
    with pytest.raises(AttncError) as caught:
        parse_body(Source("<docstring of f>", "\n    atend causal\n"), "f")
    assert "<docstring of f>:2:5" in str(caught.value)


# --- arbitrary text -------------------------------------------------------------------------------------

WORDS = [
    *[
        "pattern",
        "input",
        "let",
        "attend",
        "heads",
        "grid",
        "require",
        "assume",
        "where",
        "and",
        "or",
        "not",
        "true",
        "false",
    ],
    *[
        "f",
        "q",
        "k",
        "n",
        "h",
        "H",
        "x",
        "window",
        "to",
        "first",
        "causal",
        "all",
        "even",
        "rest",
        "blocks",
        "edges",
        "int",
        "bool",
    ],
    *[
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        ".",
        "..",
        "=",
        "==",
        "!=",
        "<=",
        "<",
        "|",
        "&",
        "!",
        "+",
        "-",
        "*",
        "/",
        "//",
        "%",
        "0",
        "1",
        "64",
        "2.5",
        "#\n",
        "\n",
    ],
]


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(), st.lists(st.sampled_from(WORDS)).map(" ".join)))
def test_any_text_is_parsed_or_refused(text):
    for run in (lambda: parse(Source("t", text)), lambda: parse_body(Source("t", text), "f")):
        try:
            file = run()
        except AttncError as error:
            assert len(error.diagnostics) == 1 and str(error)
        else:
            assert dump(file)

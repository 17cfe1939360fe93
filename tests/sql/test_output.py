"""table, csv, json and parquet: what they hold, and that a file appears whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import pty
import subprocess
import sys
import textwrap

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lirastore import catalog
from lirastore.catalog.table import write_table
from lirastore.errors import InputError, QueryError

VALUES = """
    select
        1 as i, null::bigint as nothing, 0.1 + 0.2e0 as x, 'nan'::double as n, '-inf'::double as f, true as b,
        'a,"b"' || chr(10) || 'c' as s, '' as e, '{"k": [1, null]}'::json as j, [1.5, null] as l,
        {'a': 1} as r, map {'k': 2} as m, 12345678901234567890::hugeint as h, 1.50::decimal(9, 2) as d,
        '\\x01\\xff'::blob as o, timestamp '2026-01-02 03:04:05' as t, date '2026-01-02' as y,
        interval 3 day as p, 'z'::enum('y', 'z') as u
"""
KINDS = ["table", "csv", "json", "parquet"]


@pytest.fixture
def ask(attacked):
    return lambda sql: catalog.query(attacked, sql)


def written(ask, sql, path):
    catalog.write(ask(sql), output=path)
    return path.read_bytes()


def test_json_is_strict(ask, tmp_path):
    def refuse(constant):
        raise AssertionError(constant)

    (row,) = json.loads(written(ask, VALUES, tmp_path / "x.json"), parse_constant=refuse)
    assert row == {
        "i": 1, "nothing": None, "x": 0.1 + 0.2, "n": None, "f": None, "b": True, "s": 'a,"b"\nc', "e": "",
        "j": {"k": [1, None]}, "l": [1.5, None], "r": {"a": 1}, "m": [["k", 2]], "h": 12345678901234567890,
        "d": 1.5, "o": "01ff", "t": "2026-01-02T03:04:05", "y": "2026-01-02", "p": row["p"], "u": "z",
    }  # fmt: skip
    assert json.loads(written(ask, "from scores where false", tmp_path / "x.json")) == []


def test_csv_reads_back(ask, tmp_path):
    text = written(ask, VALUES, tmp_path / "x.csv").decode()
    header, row = csv.reader(io.StringIO(text))
    got = dict(zip(header, row, strict=True))
    assert (
        got["nothing"] == "" and got["e"] == "" and ',"",' in text
    )  # NULL is empty, the empty string quoted
    assert float(got["x"]) == 0.1 + 0.2 and math.isnan(float(got["n"])) and float(got["f"]) == -math.inf
    assert (got["b"], got["s"], got["h"], got["d"], got["u"]) == (
        "true",
        'a,"b"\nc',
        "12345678901234567890",
        "1.50",
        "z",
    )
    assert json.loads(got["j"]) == {"k": [1, None]} and json.loads(got["l"]) == [1.5, None]
    assert json.loads(got["r"]) == {"a": 1} and json.loads(got["m"]) == [["k", 2]] and got["o"] == "01ff"
    assert (
        written(ask, "from scores where false", tmp_path / "x.csv") == b"attack,model,example,score,member\n"
    )
    assert written(ask, 'select 1 as "a,b", 2 as "q"""', tmp_path / "x.csv") == b'"a,b","q"""\n1,2\n'


def test_csv_scores_are_exact(ask, attacked, tmp_path):
    rows = csv.DictReader(io.StringIO(written(ask, "from scores order by all", tmp_path / "x.csv").decode()))
    got = [
        (r["attack"], int(r["model"]), int(r["example"]), float(r["score"]), r["member"] == "true")
        for r in rows
    ]
    assert got == ask("from scores order by all").fetchall()


def test_parquet_keeps_types(ask, attacked, tmp_path):
    written(ask, "from scores order by all", tmp_path / "x.parquet")
    table = pq.read_table(tmp_path / "x.parquet")
    assert table.equals(ask("from scores order by all").arrow())
    written(ask, VALUES, tmp_path / "y.parquet")
    assert pq.read_table(tmp_path / "y.parquet").num_rows == 1
    written(ask, "from scores where false", tmp_path / "z.parquet")
    empty = pq.read_table(tmp_path / "z.parquet")
    assert empty.num_rows == 0 and empty.column_names == ["attack", "model", "example", "score", "member"]


def test_repeated_names(ask, tmp_path):
    sql = "select 1 as a, 2 as a, 3 as a_1"
    assert json.loads(written(ask, sql, tmp_path / "x.json")) == [{"a": 1, "a_1": 2, "a_1_1": 3}]
    written(ask, sql, tmp_path / "x.parquet")
    assert pq.read_table(tmp_path / "x.parquet").to_pylist() == [{"a": 1, "a_1": 2, "a_1_1": 3}]
    assert written(ask, sql, tmp_path / "x.csv") == b"a,a,a_1\n1,2,3\n"


def test_table(ask, capsys):
    catalog.write(
        ask(
            "select model, 1/3 as share, 'x' as name, null as nothing "
            "from models where model in (0, 7) order by all"
        )
    )
    assert capsys.readouterr().out.splitlines() == [
        "model     share  name  nothing",
        "-----  --------  ----  -------",
        "    0  0.333333  x     NULL",
        "    7  0.333333  x     NULL",
        "(2 rows)",
    ]
    catalog.write(ask("from scores where false"))
    assert capsys.readouterr().out.splitlines()[-1] == "(0 rows)"


def test_table_says_what_it_leaves_out(ask, capsys):
    catalog.write(ask("from range(250000)"))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1000 + 3 and lines[-2].strip() == "999"
    assert lines[-1].startswith("(1,000 of 250,000 rows shown")


def test_table_fits_a_terminal(ask):
    stream = io.StringIO()
    write_table(ask("from metrics"), stream, width=80)
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    panels = stream.getvalue().split("\n\n")
    assert len(panels) > 2 and all(panel.startswith("attack") for panel in panels)
    assert stream.getvalue().count("tpr_at_0fp_hi") == 1
    stream = io.StringIO()
    write_table(ask("select repeat('x', 300) as a, 1 as b"), stream, width=40)
    assert max(map(len, stream.getvalue().splitlines())) <= 40 and "…" in stream.getvalue()


def test_table_does_not_obey_text(ask, capsys):
    catalog.write(ask("select 'a' || chr(10) || chr(27) || '[2Jü' as s"))
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\\n\\x1b[2Jü" in out


@pytest.mark.parametrize("form", KINDS)
def test_the_form_is_that_of_the_option_or_of_the_name(ask, tmp_path, form):
    given, named = tmp_path / "out.txt", tmp_path / f"out.{form}"
    catalog.write(ask("from metrics"), form=form, output=given)
    catalog.write(ask("from metrics"), output=named)
    assert given.read_bytes() == named.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([given.name, named.name])


def test_an_unknown_form(ask):
    with (
        pytest.raises(InputError, match="expected one of table, csv, json, parquet"),
        ask("metrics") as answer,
    ):
        catalog.write(answer, form="xlsx")


@pytest.mark.parametrize("form", KINDS)
def test_a_failure_leaves_the_old_file(ask, tmp_path, form):
    path = tmp_path / f"x.{form}"
    path.write_text("old")
    with pytest.raises(QueryError, match="too far"):
        catalog.write(
            ask("select if(i < 500000, i, error('too far')) from range(600000) as t(i)"), output=path
        )
    assert path.read_text() == "old" and [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_device_is_written_to_and_stays(ask, tmp_path):
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    reader = subprocess.Popen(["cat", str(fifo)], stdout=subprocess.PIPE)
    catalog.write(ask("select 1 as a"), form="csv", output=fifo)
    assert reader.communicate()[0] == b"a\n1\n"
    assert fifo.is_fifo()


def test_a_folder_that_does_not_exist(ask, tmp_path):
    with pytest.raises(FileNotFoundError), ask("metrics") as answer:
        catalog.write(answer, output=tmp_path / "no" / "x.csv")


def test_parquet_on_stdout(attacked):
    script = f"""
        import sys
        from lirastore import catalog, store
        from lirastore.errors import InputError
        try:
            catalog.write(catalog.query(store.open_store({str(attacked.path)!r}), "metrics"), form="parquet")
        except InputError as error:
            print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    piped = subprocess.run(command, capture_output=True, check=True).stdout
    assert pq.read_table(pa.BufferReader(piped)).num_rows == 2
    master, slave = pty.openpty()
    with subprocess.Popen(command, stdout=slave) as process:
        os.close(slave)
        shown = os.read(master, 10_000).decode()
        process.wait()
    os.close(master)
    assert "name a file with -o" in shown


def test_output_takes_bounded_memory(attacked, tmp_path):
    script = f"""
        import resource
        from pathlib import Path
        from lirastore import catalog, store
        made = store.open_store({str(attacked.path)!r})
        folder = Path({str(tmp_path)!r})
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        def write(rows):
            sql = f"select i, i * 0.5 as x, 'name' || (i % 10)::varchar as s from range({{rows}}) as t(i)"
            for form in ("csv", "json", "parquet", "table"):
                catalog.write(catalog.query(made, sql), output=folder / f"x.{{form}}")
        write(100_000)
        before = peak()
        write(500_000)
        print(peak() - before)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100  # as Python's objects, the rows would have 170 MB
    assert pq.read_metadata(tmp_path / "x.parquet").num_rows == 500_000

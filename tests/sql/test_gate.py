"""The read-only gate: hostile statements change nothing, honest ones pass, and errors say what to do."""

from __future__ import annotations

import hashlib
import stat
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from sql_stores import make_store, put_memorization, put_scores

from lirastore import catalog
from lirastore.catalog.limits import _private_folder
from lirastore.errors import InputError, LirastoreError, MemoryBudgetError, QueryError
from lirastore.memory import default_budget

SERIALIZED = (
    "(select json_serialize_sql('with x as (copy (select 1) to ''{part}'' (use_tmp_file false)) from x'))"
)

# {part}: a result file, which DuckDB may read. {store}, {cwd}: directories. {secret}: a file elsewhere.
HOSTILE = [
    # writing files
    "copy (select 1) to '{part}'",
    "copy scores to '{cwd}/out.csv'",
    "copy (from scores) to '{store}/out.parquet' (format parquet)",
    "copy scores to '{store}/parts' (format parquet, partition_by (attack))",
    "copy (select 1) to '/dev/stdout'",
    "export database '{store}/dump'",
    "export database '{cwd}/dump' (format parquet)",
    "import database '{store}'",
    "with x as (copy (select 666) to '{part}' (use_tmp_file false)) from x",
    "with x as (copy (select 666) to '{part}' (use_tmp_file false, format parquet)) select 1",
    "WITH x AS MATERIALIZED (COPY scores TO '{cwd}/out.csv') SELECT * FROM x",
    "with a as (select 1), x as (copy (from a) to '{part}' (use_tmp_file false)) from a, x",
    "from (with x as (copy (select 1) to '{part}' (use_tmp_file false)) from x)",
    "select (with x as (copy (select 1) to '{part}' (use_tmp_file false)) select count(*) from x)",
    "describe with x as (copy (select 1) to '{part}' (use_tmp_file false)) from x",
    "summarize with x as (copy (select 1) to '{part}' (use_tmp_file false)) from x",
    "with recursive x as (copy (select 1) to '{part}' (use_tmp_file false)) from x",
    "from query('with x as (copy (select 1) to ''{part}'' (use_tmp_file false)) from x')",
    "from json_execute_serialized_sql(" + SERIALIZED + ")",
    "from system.main.json_execute_serialized_sql(" + SERIALIZED + ")",
    'from "JSON_EXECUTE_SERIALIZED_SQL"(' + SERIALIZED + ")",
    "from query('from json_execute_serialized_sql(" + SERIALIZED.replace("'", "''") + ")')",
    "pragma json_execute_serialized_sql(" + SERIALIZED + ")",
    "call json_execute_serialized_sql(" + SERIALIZED + ")",
    # reaching other files
    "attach '{cwd}/new.duckdb'",
    "attach '{cwd}/new.duckdb' as other (read_only false)",
    "attach '{secret}' as other",
    "detach memory",
    "from read_csv('/etc/passwd')",
    "from '/etc/passwd'",
    "from '{secret}'",
    "from read_text('{secret}')",
    "from read_blob('{secret}')",
    "from read_blob('{part}')",
    "from read_parquet('{store}/_lirastore/results/*/*/*/*.parquet')",
    "from read_json('{store}/zarr.json')",
    "from read_duckdb('{secret}')",
    "from sniff_csv('{secret}')",
    "from glob('{store}/**')",
    "from parquet_metadata('{part}')",
    "from 'https://example.com/x.parquet'",
    "from read_parquet('s3://bucket/x.parquet')",
    "from which_secret('s3://bucket', 's3')",
    "select getenv('HOME')",
    "create secret (type s3, key_id 'a', secret 'b')",
    # settings, extensions, the process
    "set enable_external_access = true",
    "set lock_configuration = false",
    "set global allowed_directories = ['/']",
    "reset allowed_paths",
    "set temp_directory = '{store}'",
    "pragma temp_directory = '{store}'",
    "pragma enable_profiling = 'json'",
    "pragma profiling_output = '{cwd}/profile.json'",
    "from enable_profiling(save_location := '{cwd}/profile.json')",
    "call enable_logging(storage = 'file', storage_path = '{cwd}/log')",
    "from enable_logging('QueryLog', storage := 'file', storage_path := '{cwd}/log')",
    "from truncate_duckdb_logs()",
    "install httpfs",
    "load httpfs",
    "load '{cwd}/evil.duckdb_extension'",
    "install httpfs from 'http://localhost'",
    "update extensions",
    "from create_external_resource('{cwd}/x')",
    "from checkpoint()",
    "force checkpoint",
    "vacuum",
    "use memory",
    "begin transaction",
    "select * from arrow_scan(1::bigint, 2::bigint, 3::bigint)",
    "from python_map_function((select 1), 2)",
    "from pandas_scan(1)",
    "from frame",
    "from local_frame",
    # changing tables and views
    "insert into scores values ('a', 1, 1, 1, true)",
    "insert into stored.models select * from stored.models",
    "update stored.models set model = 0",
    "delete from stored.models",
    "truncate stored.models",
    "merge into stored.models as m using models as n on m.model = n.model when matched then delete",
    "create table mine as from scores",
    "create or replace view metrics as select 1",
    "create or replace macro verdict(a, b) as table select 1",
    "create function f(x) as x",
    "drop view scores",
    "drop schema stored cascade",
    "alter view scores rename to scored",
    "comment on view scores is 'mine'",
    "with x as (insert into stored.models select * from stored.models returning *) from x",
    "with x as (delete from stored.models returning *) from x",
    "with x as (update stored.models set model = 0 returning *) from x",
    "with x as (truncate stored.models) from x",
    "with x as (with y as (delete from stored.models returning *) from y) from x",
    # several statements, other kinds of statements, tricks
    "select 1; select 2",
    "select 1; drop view scores",
    "from metrics; copy scores to '{cwd}/out.csv'",
    "select 1 /* ; */; -- nothing\ncopy scores to '{cwd}/out.csv' -- ;",
    "/* select */ copy scores to '{cwd}/out.csv'",
    "-- from metrics\ncopy scores to '{cwd}/out.csv'",
    "explain select 1",
    "explain analyze copy scores to '{cwd}/out.csv'",
    "explain analyze select 1",
    "prepare p as copy scores to '{cwd}/out.csv'",
    "prepare p as select 1; execute p",
    "execute p",
    "deallocate p",
    "call pragma_version()",
    "pragma show_tables",
    "set variable x = 1",
    "pivot metrics on attack using sum(auc)",
    "metrics; drop view scores",
    "verdict('a', 0.1); drop view scores",
    "most_exposed((with x as (truncate stored.models) select 'a'), 3)",
    "checkpoint",
    "",
    ";",
    "-- nothing",
]  # fmt: skip

HONEST = [
    "metrics",
    " Metrics ; ",
    "most_exposed('alpha', 3)",
    "tpr_at_fpr(0.001);",
    "from metrics",
    "from metrics select attack, auc;",
    "select * from scores where example = 17 -- every model\n",
    "table models",
    "values (1, 'a'), (2, 'b')",
    "describe metrics",
    "describe from tpr_at_fpr(0.1)",
    "summarize models",
    "summarize from scores where attack = 'alpha'",
    "show tables",
    "with best as (select * from metrics order by auc desc limit 1) select attack from best",
    "with recursive n as (select 1 as i union all select i + 1 from n where i < 5) from n",
    "with a as materialized (from models), b as (from a union from models) select count(*) from a, b",
    "select model, rank() over (partition by attack order by auc desc) from metrics_by_model",
    "pivot (from metrics_by_model) on attack in ('alpha', 'beta') using avg(auc) group by model",
    "unpivot metrics on tpr_at_10pct, tpr_at_1pct into name point value tpr",
    "select * from scores qualify row_number() over (partition by attack order by score desc) = 1",
    "select a.attack, b.auc from attacks as a left join metrics as b using (attack)",
    "from range(3)",
    "select unnest([1, 2, 3])",
    "from models, unnest([1, 2]) as t(i)",
    "select column_name from duckdb_columns() where table_name = 'metrics'",
    "select clopper_pearson_lo(3, 10), clopper_pearson_hi(3, 10)",
    "select count(*) filter (predicted) from verdict('alpha', 0.01)",
    "select example from scores intersect select example from exposure where detected > 0",
    "select 'COPY_QUERY_NODE' as type, {'type': 'INSERT_QUERY_NODE', 'cte_map': 1} as x",
    "select e.example, (select max(s.score) from scores as s where s.example = e.example) from examples as e",
    "select * from membership where model = 3 and member limit 5 offset 2",
    "select list(score order by model) from scores where example = 1 group by attack",
    "from scores tablesample 10 rows",
]


@pytest.fixture
def place(tmp_path, members, rng, monkeypatch):
    """(store, names for the hostile statements); the working directory is a fresh one."""
    made = make_store(tmp_path / "s.lira", members)
    result = put_scores(made, "alpha", rng.normal(size=members.shape))
    put_scores(made, "beta", rng.normal(size=members.shape))
    put_memorization(made, np.ones(members.shape[1]), np.zeros(members.shape[1]))
    (tmp_path / "cwd").mkdir()
    secret = tmp_path / "secret.csv"
    secret.write_text("secret\n42\n")
    monkeypatch.chdir(tmp_path / "cwd")
    part = result.files(made.lira)[0]
    return made, {"part": part, "store": made.path, "cwd": tmp_path / "cwd", "secret": secret}


def fingerprint(folder: Path) -> dict[str, object]:
    """Every file and directory below: sizes, times, contents."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None,
        )
        for path in sorted(folder.rglob("*"))
    }


def test_hostile_statements_are_refused_and_change_nothing(place, tmp_path, capfd):
    made, names = place
    frame = pa.table({"secret": [42]})
    globals()["frame"] = local_frame = frame  # what DuckDB's replacement scan would find in the caller
    before = fingerprint(tmp_path)
    assert len(HOSTILE) == len(set(HOSTILE)) > 100
    for sql in HOSTILE:
        for name, value in names.items():
            sql = sql.replace("{" + name + "}", str(value))
        with pytest.raises(QueryError), catalog.query(made, sql) as answer:
            pytest.fail(f"{sql} was answered: {answer.fetchall()}")
        assert fingerprint(tmp_path) == before, sql
    assert local_frame is frame
    assert capfd.readouterr().out == ""
    assert len(catalog.query(made, "metrics").fetchall()) == 2


def test_what_the_gate_lets_through_is_still_locked(place, tmp_path, monkeypatch):
    """With the check of the statement off, settings stay locked and other files out of reach."""
    made, names = place
    monkeypatch.setattr("lirastore.catalog.gate._admitted", lambda _connection, sql: (sql, {}))
    before = fingerprint(tmp_path)
    for sql in (
        "copy (select 1) to '{cwd}/out.csv'",
        "attach '{cwd}/new.duckdb'",
        "set enable_external_access = true",
        "set allowed_directories = ['/']",
        "set lock_configuration = false",
        "install httpfs",
        "load httpfs",
        "from read_text('{secret}')",
        "from read_csv('{store}/zarr.json')",
        "from enable_logging('QueryLog', storage := 'file', storage_path := '{cwd}/log')",
        "from enable_profiling(save_location := '{cwd}/profile.json')",
    ):
        for name, value in names.items():
            sql = sql.replace("{" + name + "}", str(value))
        with pytest.raises(LirastoreError):
            catalog.query(made, sql).fetchall()
        assert fingerprint(tmp_path) == before, sql


@pytest.mark.parametrize("sql", HONEST)
def test_honest_statements_pass(attacked, sql):
    with catalog.query(attacked, sql) as answer:
        rows = answer.fetchall()
    assert rows and all(len(row) == len(answer.columns) for row in rows)


def test_a_read_only_store_is_enough(place):
    made, _ = place
    paths = [made.path, *made.path.rglob("*")]
    modes = [(path, path.stat().st_mode) for path in paths]
    before = fingerprint(made.path)
    try:
        for path, mode in modes:
            path.chmod(mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
        for name in ("metrics", "models", "exposure", "verdict('alpha', 0.1)"):
            assert catalog.query(made, name).fetchall()
        with catalog.connect(made) as connection:
            assert connection.execute("from metrics").fetchall()
    finally:
        for path, mode in modes:
            path.chmod(mode)
    assert fingerprint(made.path) == before


# --- results --------------------------------------------------------------------------------------


def test_every_way_to_read_gives_the_same(attacked):
    sql = "select attack, model, score from scores where example < 20 order by all"
    rows = catalog.query(attacked, sql).fetchall()
    assert len(rows) == 2 * 8 * 20
    assert [tuple(row.values()) for row in catalog.query(attacked, sql).arrow().to_pylist()] == rows
    assert list(catalog.query(attacked, sql).df().itertuples(index=False, name=None)) == rows
    batches = list(catalog.query(attacked, sql).batches())
    assert pa.Table.from_batches(batches).equals(catalog.query(attacked, sql).arrow())


def test_a_result_is_read_once(attacked):
    with catalog.query(attacked, "metrics") as answer:
        assert len(answer.fetchall()) == 2
        with pytest.raises(QueryError, match="read"):
            answer.fetchall()
    unread = catalog.query(attacked, "metrics")
    unread.close()
    with pytest.raises(QueryError, match="closed"):
        unread.arrow()


@pytest.fixture
def spill(tmp_path, monkeypatch):
    """The folder for temporary folders, with nothing in it; the working directory is another fresh one."""
    (tmp_path / "spill").mkdir()
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "spill"))
    _private_folder.cache_clear()
    yield tmp_path / "spill"
    _private_folder.cache_clear()
    assert not list((tmp_path / "cwd").iterdir())


SPILLS = "select i from (select hash(range) as i from range(4000000)) order by i"


def spilled(folder):
    """What there is below the one private folder of this process."""
    (private,) = folder.iterdir()
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    return list(private.rglob("*"))


def test_temporary_files_of_a_query_go_with_it(attacked, spill):
    half_read = catalog.query(attacked, SPILLS, memory=20_000_000, threads=1).batches(10)
    next(half_read)
    assert spilled(spill)
    half_read.close()
    assert not spilled(spill)
    for wrong in ("selec", "select error('no')", f"select error(i::varchar) from ({SPILLS})"):
        with pytest.raises(QueryError):
            catalog.query(attacked, wrong, memory=20_000_000, threads=1).fetchall()
        assert not spilled(spill)


def test_temporary_files_of_a_connection_go_when_the_last_is_closed(attacked, spill):
    connection = catalog.connect(attacked, memory=20_000_000, threads=1)
    cursor = connection.cursor()
    del connection
    assert cursor.execute(SPILLS).fetchone()
    assert spilled(spill)
    cursor.close()
    assert not spilled(spill)
    with catalog.connect(attacked, memory=20_000_000, threads=1) as connection:
        connection.execute(f"create table kept as {SPILLS}")
        assert spilled(spill)
    assert not spilled(spill)


def test_nothing_is_left_when_the_process_ends(attacked, tmp_path):
    script = f"""
        import tempfile
        from lirastore import catalog, store
        tempfile.tempdir = {str(tmp_path)!r}
        connection = catalog.connect(store.open_store({str(attacked.path)!r}), memory=20_000_000, threads=1)
        connection.execute({SPILLS!r}).fetchone()
    """
    done = run_python(script)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())


def test_limits(attacked):
    sql = "select current_setting('memory_limit'), current_setting('threads')"
    assert catalog.query(attacked, sql, memory=300 * 2**20, threads=1).fetchall() == [("300.0 MiB", 1)]
    with catalog.connect(attacked, memory=300 * 2**20, threads=1) as connection:
        assert connection.execute(sql).fetchall() == [("300.0 MiB", 1)]
    with catalog.connect(attacked) as connection:
        ((text, _),) = connection.execute(sql).fetchall()
        value, unit = text.split()
        assert float(value) * 2 ** {"MiB": 20, "GiB": 30}[unit] == pytest.approx(default_budget(), rel=0.1)
    with pytest.raises(MemoryBudgetError, match="--memory"):
        catalog.query(attacked, "select list(i) from range(30000000) as t(i)", memory=30_000_000).fetchall()
    for wrong in ({"memory": 0}, {"threads": -1}):
        with pytest.raises(InputError, match="at least 1"):
            catalog.query(attacked, "models", **wrong)
        with pytest.raises(InputError, match="at least 1"):
            catalog.connect(attacked, **wrong)


def test_membership_is_read_row_by_row(attacked, monkeypatch):
    rows = []
    real = type(attacked).membership
    monkeypatch.setattr(
        type(attacked), "membership", lambda store, models: rows.append(len(models)) or real(store, models)
    )
    assert len(catalog.query(attacked, "models").fetchall()) <= len(rows) == sum(rows)


def test_a_sort_larger_than_memory_spills(attacked):
    total = sum(
        batch.num_rows for batch in catalog.query(attacked, SPILLS, memory=20_000_000, threads=1).batches()
    )
    assert total == 4_000_000


def test_streaming_takes_bounded_memory(attacked):
    """A hundred million rows would be 2.4 GB."""
    script = f"""
        import resource
        from lirastore import catalog, store
        made = store.open_store({str(attacked.path)!r})
        list(catalog.query(made, "from metrics").batches())
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        before = peak()
        sql = "select i, i * 2 as j, i / 3 as k from range(30000000) as t(i)"
        assert sum(batch.num_rows for batch in catalog.query(made, sql).batches()) == 30_000_000
        print((peak() - before) // 1024)
    """
    done = run_python(script)
    assert int(done.stdout) < 200


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("metrcs", ["metrcs", "metrics_by_model", "tpr_at_fpr(fpr)"]),
        ("from nothing", ["nothing", "There are the views ablation_table, attacks"]),
        ("from tpr_at(0.1)", ["tpr_at", "macro"]),
        ("was_member", ["was_member is a macro", "arguments, from was_member(model, example)"]),
        ("select attack from VERDICT as v", ["verdict is a macro", "from verdict(attack, fpr)"]),
        ("select auk from metrics", ["auk", "auc"]),
        ("selec 1", ["syntax error", "selec"]),
        ("select 1 +", ["syntax error"]),
        ("select cast('x' as integer)", ["Conversion Error", "'x'"]),
        ("select error('it broke')", ["it broke"]),
        ("select ?", ["parameter"]),
        ("select 1; select 2", ["one SELECT", "SELECT and SELECT"]),
        ("drop view scores", ["one SELECT", "DROP"]),
        ("pivot metrics on attack using sum(auc)", ["IN (…)"]),
        ("with x as (truncate stored.models) from x", ["DELETE", "only read"]),
        ("from query('select 1')", ["'query'", "table function"]),
        ("", ["got none"]),
        ("select " + " + ".join(["1"] * 900), ["nested", "WITH"]),
    ],
)
def test_errors_are_one_line_that_helps(attacked, sql, says):
    with pytest.raises(QueryError) as caught:
        catalog.query(attacked, sql).fetchall()
    message = str(caught.value)
    assert "\n" not in message
    for part in says:
        assert part in message


@pytest.mark.parametrize("read", ["fetchall", "arrow", "batches"])
def test_an_error_of_the_statement_blames_no_file(attacked, monkeypatch, read):
    monkeypatch.setattr("lirastore.results.verify_results", lambda lira: pytest.fail("files were digested"))
    for sql in (
        "select error('no') from scores",
        "select strptime(attack, '%Y') from scores",
        "select case when i < 300000 then i else error('too far') end from range(400000) as t(i)",
        "from read_text('/etc/passwd')",
        "tpr_at_fpr(2)",
    ):
        with pytest.raises(QueryError):
            list(getattr(catalog.query(attacked, sql), read)())


def test_errors_while_rows_are_taken(attacked):
    sql = "select case when i < 2000000 then i else error('too far') end from range(3000000) as t(i)"
    with pytest.raises(QueryError, match="too far"):
        for _ in catalog.query(attacked, sql).batches(1000):
            pass


def test_a_signal_ends_a_long_query(attacked):
    """It would take hours, however it is read."""
    script = f"""
        import signal
        from lirastore import catalog, store
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        made = store.open_store({str(attacked.path)!r})
        sql = "select count(*) from range(1000000000) as a(i), range(1000) as b(j) where (i * j) % 7 = 1"
        for read in (
            lambda: catalog.query(made, sql, threads=1).fetchall(),
            lambda: catalog.query(made, sql, threads=1).arrow(),
            lambda: catalog.query(made, sql, threads=1).df(),
            lambda: next(catalog.query(made, sql, threads=1).batches()),
            lambda: catalog.ask(made, lambda opened: opened.execute(sql).fetchall(), threads=1),
        ):
            catalog.query(made, "metrics").fetchall()  # everything is imported
            signal.setitimer(signal.ITIMER_REAL, 0.5)
            try:
                read()
            except KeyboardInterrupt:
                print("interrupted")
    """
    done = run_python(script)
    assert done.stdout == "interrupted\n" * 5, done.stderr


def run_python(script):
    command = [sys.executable, "-c", textwrap.dedent(script)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_every_table_function_of_duckdb_that_passes_is_known():
    """The list of the gate names functions that exist, so that a typing error in it shows."""
    from lirastore.catalog.gate import _TABLE_FUNCTIONS

    sql = "select function_name from duckdb_functions() where function_type in ('table', 'table_macro')"
    with duckdb.connect() as connection:
        assert {name for (name,) in connection.execute(sql).fetchall()} >= _TABLE_FUNCTIONS

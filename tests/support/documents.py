"""Random documents for the reading pipeline, and an independent reading of the rows that it makes of them.

    documents.py make SEED COUNT FILE              writes canonical Extended JSON lines, every type of BSON in them
    documents.py check SEED COUNT MODE ROWS DEAD   rebuilds each document from its row, as the table of contrib/doc/pipelines.md says

MODE is plain or extended. ROWS and DEAD are JSON lines of what the database holds, every column as text. Nothing of the
hub is used here: numbers are read by Python's json and decimal, types by the bson of pymongo.
"""

import base64
import datetime
import json
import random
import sys
from decimal import Decimal

from bson import Binary, Code, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp, encode, json_util
from bson.codec_options import DatetimeConversion

OPTIONS = json_util.JSONOptions(
    json_mode=json_util.JSONMode.CANONICAL, datetime_conversion=DatetimeConversion.DATETIME_MS, tz_aware=True
)
DOUBLES = [0.0, -0.0, 1.0, 1e16, 1e18, -1e15, 2**53 + 2.0, 1e21, 1e300, 1.7976931348623157e308, 5e-324, 2.2250738585072014e-308,
           9.922444955766851, 99999999999999.98, 0.1, float("inf"), float("-inf"), float("nan")]
INTEGERS = [0, -1, 2**31 - 1, -(2**31), 2**31, 2**53 + 1, 2**63 - 1, -(2**63), 1234567890]
TEXTS = ["", "a", "žluťoučký", "日本語", "👩‍🚀", "\u2028\u007f", "line\nbreak\ttab", "\"quoted\" \\ back", "\ufeff", "'; DROP TABLE x; --",
         "2024", "{\"a\":1}", "null", "\u2400", "é\u0301" * 20]
DATES = [0, -1, 1767528000123, -62135596800000, 253402300799999, 253402300800000, 2**63 - 1, -(2**63)]


def text(rng):
    kind = rng.random()
    if kind < 0.6:
        return rng.choice(TEXTS)
    if kind < 0.61:
        return "nul\0inside"
    return "".join(chr(rng.choice([rng.randrange(1, 0x80), rng.randrange(0xA0, 0xD800), rng.randrange(0x10000, 0x11000)]))
                   for _ in range(rng.randrange(30)))


def name(rng):
    return rng.choice(["a", "b", "value", "unmapped", "timestamp", "_unmapped", "meta", "dotted.name", "", "ключ", "x" * 100]) + (
        str(rng.randrange(50)) if rng.random() < 0.5 else "")


def double(rng):
    if rng.random() < 0.5:
        return rng.choice(DOUBLES)
    return rng.uniform(-1e6, 1e6) if rng.random() < 0.5 else float(f"{rng.randrange(10**17)}e{rng.randrange(-300, 290)}")


def decimal(rng):
    kind = rng.random()
    if kind < 0.2:
        return rng.choice(["NaN", "Infinity", "-Infinity", "0", "-0", "1.10", "1E+6111", "1E-6176"])
    return str(Decimal128(Decimal(f"{rng.choice(['', '-'])}{rng.randrange(10**34)}E{rng.randrange(-6100, 6000)}")))


def hexadecimal(rng, count):
    return "".join(rng.choice("0123456789abcdef") for _ in range(count))


def scalar(rng):
    """One value of canonical Extended JSON."""
    kind = rng.randrange(18)
    if kind == 0:
        value = double(rng)
        shown = {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}.get(repr(value), repr(value))
        return {"$numberDouble": shown}
    if kind == 1:
        value = rng.choice([n for n in INTEGERS if -(2**31) <= n < 2**31])
        return {"$numberInt": str(value)}
    if kind == 2:
        return {"$numberLong": str(rng.choice(INTEGERS))}
    if kind == 3:
        return {"$oid": hexadecimal(rng, 24)}
    if kind == 4:
        return {"$date": {"$numberLong": str(rng.choice(DATES + [rng.randrange(-(2**45), 2**45)]))}}
    if kind == 5:
        content = base64.b64encode(rng.randbytes(16)).decode()
        return {"$binary": {"base64": content, "subType": rng.choice(["00", "02", "03", "04", "05", "06", "80", "ff"])}}
    if kind == 6:
        return {"$regularExpression": {"pattern": rng.choice(["^a.*", "", "é\\/"]), "options": rng.choice(["", "i", "imx"])}}
    if kind == 7:
        return {"$timestamp": {"t": rng.randrange(2**32), "i": rng.randrange(2**32)}}
    if kind == 8:
        return {"$numberDecimal": decimal(rng)}
    if kind == 9:
        return {"$code": "function() { return 1; }"}
    if kind == 10:
        return {"$code": "f()", "$scope": {"x": {"$numberInt": "1"}, "y": text(rng)}}
    if kind == 11:
        return {"$symbol": text(rng)}
    if kind == 12:
        return {"$dbPointer": {"$ref": "db.c", "$id": {"$oid": hexadecimal(rng, 24)}}}
    if kind == 13:
        return rng.choice([{"$minKey": 1}, {"$maxKey": 1}, {"$undefined": True}])
    if kind == 14:
        return rng.choice([None, True, False])
    return text(rng)


def value(rng, depth):
    kind = rng.random()
    if depth > 0 and kind < 0.25:
        return {name(rng): value(rng, depth - 1) for _ in range(rng.randrange(5))}
    if depth > 0 and kind < 0.4:
        return [value(rng, depth - 1) for _ in range(rng.randrange(5))]
    if kind < 0.402:
        nested = scalar(rng)
        for _ in range(rng.randrange(1, 150)):
            nested = [nested] if rng.random() < 0.5 else {"n": nested}
        return nested
    return scalar(rng)


def document(seed, number):
    rng = random.Random(f"{seed}:{number}")
    kind = rng.randrange(9)
    ids = [{"$oid": f"{number:024x}"}, f"id-{number} é", {"$numberInt": str(number)}, {"$numberLong": str(2**40 + number)},
           {"$numberDouble": repr(number + 0.5)}, {"host": "web", "n": {"$numberInt": str(number)}}, f"long-{number}-" + "x" * 3000,
           {"$date": {"$numberLong": str(number)}}, {"$binary": {"base64": base64.b64encode(str(number).encode()).decode(), "subType": "00"}}]
    made = {"_id": ids[kind]}
    fields = []
    if rng.random() < 0.7:
        fields.append(("timestamp", rng.choice([
            {"$date": {"$numberLong": str(rng.randrange(-(2**40), 2**42))}}, "2026-01-04T12:00:00.123Z", {"$numberInt": "1767528000"},
            {"$numberLong": "1767528000123"}, "1767528000", "20240101", "soon", None, {"$numberLong": str(2**62)}, {"a": "b"}, "2024"])))
    for column in ("source", "event_type"):
        if rng.random() < 0.7:
            fields.append((column, text(rng) if rng.random() < 0.9 else rng.choice([None, scalar(rng)])))
    if rng.random() < 0.6:
        fields.append(("payload", value(rng, 4)))
    if rng.random() < 0.5:
        fields.append(("meta", value(rng, 2) if rng.random() < 0.3 else {name(rng): value(rng, 2) for _ in range(rng.randrange(4))}))
    for _ in range(rng.choice([0, 0, 1, 3])):
        fields.append((rng.choice(["status", "level", "extra", "ещё", "a.b", "_x"]) + str(rng.randrange(3)), value(rng, 3)))
    rng.shuffle(fields)
    made.update(fields)
    return made


def has_nul(tree):
    if isinstance(tree, dict):
        return any(has_nul(item) for pair in tree.items() for item in pair)
    return any(map(has_nul, tree)) if isinstance(tree, list) else isinstance(tree, str) and "\0" in tree


# What README's table says of a value in the shape `plain`.

def rfc3339(milliseconds):
    if not -62167219200000 <= milliseconds <= 253402300799999:
        return str(milliseconds)
    if milliseconds < -62135596800000:
        return None  # Python has no year 0; no such date is made
    moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(milliseconds=milliseconds)
    fraction = f".{milliseconds % 1000:03}".rstrip("0").rstrip(".")
    return f"{moment.year:04}-{moment:%m-%dT%H:%M:%S}{fraction}Z"


def plain(tree):
    if isinstance(tree, list):
        return [plain(item) for item in tree]
    if isinstance(tree, str):
        return tree.replace("\0", "\u2400")
    if not isinstance(tree, dict):
        return tree
    wrapper = next((key for key in tree if key.startswith("$")), None)
    inner = tree.get(wrapper)
    if wrapper is None:
        return {plain(key): plain(item) for key, item in tree.items()}
    if wrapper in ("$numberInt", "$numberLong"):
        return int(inner)
    if wrapper == "$numberDouble":
        number = float(inner)
        if number != number or number in (float("inf"), float("-inf")):
            return inner
        return number + 0.0
    if wrapper == "$date":
        return rfc3339(int(inner["$numberLong"]))
    if wrapper == "$binary":
        content = base64.b64decode(inner["base64"])
        if inner["subType"] == "04":
            digits = content.hex()
            return "-".join([digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]])
        return inner["base64"]
    if wrapper == "$regularExpression":
        return f"/{inner['pattern']}/{inner['options']}"
    if wrapper == "$timestamp":
        return f"Timestamp({inner['t']}, {inner['i']})"
    if wrapper == "$dbPointer":
        return f"{inner['$ref']}/{inner['$id']['$oid']}"
    if wrapper in ("$minKey", "$maxKey"):
        return wrapper[1].upper() + wrapper[2:]
    if wrapper == "$undefined":
        return None
    return plain(inner)


def typed(tree):
    """A value of pymongo in a form that compares: types by name, numbers exact, members in one order."""
    if isinstance(tree, dict):
        wrapper = next((key for key in tree if key in ("$symbol", "$dbPointer", "$undefined")), None)
        if wrapper:
            return (wrapper, json.dumps(tree, sort_keys=True))
        return ("document", sorted((key, typed(item)) for key, item in tree.items()))
    if isinstance(tree, list):
        return ("list", [typed(item) for item in tree])
    # int32 and int64 look alike in relaxed Extended JSON.
    if isinstance(tree, int) and not isinstance(tree, bool):
        return ("integer", int(tree))
    return (type(tree).__name__, encode({"v": tree}).hex())


def loaded(tree):
    """Extended JSON to values of pymongo; its three types that pymongo has none for stay as they are."""
    if isinstance(tree, list):
        return [loaded(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    keys = set(tree)
    if keys & {"$symbol", "$dbPointer", "$undefined"}:
        return tree
    if "$code" in keys and "$scope" in keys:
        return Code(tree["$code"], loaded(tree["$scope"]))
    if any(key.startswith("$") for key in keys):
        return json_util.object_hook(restore(tree), OPTIONS)
    return {key: loaded(item) for key, item in tree.items()}


def restore(tree):
    """Inner wrappers first, as json_util's hook expects them."""
    return {key: json_util.object_hook(item, OPTIONS) if isinstance(item, dict) and set(item) == {"$numberLong"} else item
            for key, item in tree.items()}


def shown(tree, mode):
    """A value as the table of contrib/doc/pipelines.md says it is kept, ready to be compared."""
    return plain(tree) if mode == "plain" else typed(loaded(tree))


def same(left, right):
    """Plain JSON is compared by value: a whole double looks like an integer."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        # Decimal compares a double and the text of an integer exactly.
        return Decimal(left) == Decimal(right) or float(left) == float(right) and isinstance(left, float)
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right and type(left) is type(right)


def own_key(members, name):
    """The hub's own key among members: with the most underscores in front."""
    keys = [key for key in members if key.lstrip("_") == name]
    return max(keys, key=len, default=None)


def take(meta, name):
    key = own_key(meta, name)
    return meta.pop(key) if key else None


def instant(timestamp):
    """What of the table's `timestamp` is a time; none else."""
    if isinstance(timestamp, dict) and "$date" in timestamp:
        milliseconds = int(timestamp["$date"]["$numberLong"])
        return milliseconds if -62135596800000 <= milliseconds <= 253402300799999 else None
    known = {"2026-01-04T12:00:00.123Z": 1767528000123, "1767528000": 1767528000000}
    if isinstance(timestamp, str):
        return known.get(timestamp)
    return {"1767528000": 1767528000000, "1767528000123": 1767528000123}.get(
        next(iter(timestamp.values())) if isinstance(timestamp, dict) and next(iter(timestamp)).startswith("$number") else "")


def column_text(item, mode):
    """The columns of type text; what is no text is its JSON there."""
    if item is None or item == {"$undefined": True}:
        return None
    if isinstance(item, str):
        return item.replace("\0", "\u2400") if mode == "plain" else item
    return ("json", item)


def rebuilt(row, mode):
    """The fields of the document, from its row alone."""
    fields, rest = {}, {}
    load = lambda text: json.loads(text)
    meta = load(row["meta"]) if row["meta"] is not None else None
    is_theirs = row["meta"] is not None
    if isinstance(meta, dict) and not any(key.startswith("$") for key in meta):
        unmapped = take(meta, "unmapped")
        if unmapped is not None:
            rest.update(unmapped)
        if row["event_timestamp"] is None:
            no_time = own_key(meta, "timestamp")
            if no_time:
                fields["timestamp"] = meta.pop(no_time)
        if not meta and (unmapped is not None or "timestamp" in fields):
            is_theirs = False
    if is_theirs:
        fields["meta"] = meta
    if row["payload"] is not None:
        fields["payload"] = load(row["payload"])
    fields.update(rest)
    return fields


def expected(original):
    """What a document looks like after README's exceptions: nulls in text columns, a payload made of other fields."""
    columns = ("_id", "timestamp", "source", "event_type", "payload", "meta")
    fields = {key: item for key, item in original.items() if key not in columns}
    if len(id_text(original)) > 1024:
        fields["_id"] = original["_id"]
    result = {}
    if "payload" in original:
        result["payload"] = original["payload"]
        result.update(fields)
    elif fields:
        result["payload"] = fields
    if "meta" in original:
        result["meta"] = original["meta"]
    timestamp = original.get("timestamp")
    if timestamp is not None and timestamp != {"$undefined": True} and instant(timestamp) is None:
        result["timestamp"] = timestamp
    return result


def id_text(original):
    identity = original["_id"]
    return identity["$oid"] if isinstance(identity, dict) and "$oid" in identity else json.dumps(identity, ensure_ascii=False, separators=(",", ":"))


def check(seed, count, mode, rows_path, dead_path):
    rows, dead = {}, {}
    for line in open(rows_path, encoding="utf-8"):
        row = json.loads(line)
        # A key that is too long for the index is its first 100 bytes and a hash.
        rows[row["mongo_id"].split("sha256:")[0]] = row
    for line in open(dead_path, encoding="utf-8"):
        letter = json.loads(line)
        dead[letter["place"]] = letter
    wrong, letters = [], 0
    for number in range(count):
        original = document(seed, number)
        if mode == "extended" and has_nul(original):
            letter = dead.get(f"random.jsonl:{number + 1}")
            if not letter or json.loads(letter["document"]) != original or "NUL" not in letter["reason"]:
                wrong.append((number, "is no dead letter as it came", original, letter))
            letters += 1
            continue
        key = id_text(original)
        row = rows.get(key if len(key) <= 1024 else f"{key[:100]}...")
        if row is None:
            wrong.append((number, "has no row", original, None))
            continue
        want, have = expected(original), rebuilt(row, mode)
        meta_is_told = any(key.lstrip("_") == "timestamp" for key in original["meta"]) if isinstance(original.get("meta"), dict) else False
        if meta_is_told and row["event_timestamp"] is None and "timestamp" not in want:
            # README: cannot be told from a time that is none.
            have.setdefault("meta", {})
            if "timestamp" in have:
                moved = have.pop("timestamp")
                names = [key for key in original["meta"] if key.lstrip("_") == "timestamp"]
                have["meta"] = {**have["meta"], max(names, key=len): moved}
        if want.keys() != have.keys():
            wrong.append((number, "has other fields", sorted(want), sorted(have)))
            continue
        for field in want:
            left = shown(want[field], mode)
            right = have[field] if mode == "plain" else typed(loaded(have[field]))
            if not (same(left, right) if mode == "plain" else left == right):
                wrong.append((number, f"{field} differs", left, right))
        timestamp = original.get("timestamp")
        time = instant(timestamp) if timestamp is not None else None
        if time != (int(row["event_timestamp"]) if row["event_timestamp"] is not None else None):
            wrong.append((number, "event_timestamp differs", timestamp, row["event_timestamp"]))
        for column in ("source", "event_type"):
            want_text = column_text(original.get(column), mode)
            have_text = row[column]
            if isinstance(want_text, tuple):
                fine = have_text is not None and (
                    have_text == plain(want_text[1]) if mode == "plain" and isinstance(plain(want_text[1]), str) and not have_text.startswith('"')
                    else (same(plain(want_text[1]), json.loads(have_text)) if mode == "plain" else typed(loaded(want_text[1])) == typed(loaded(json.loads(have_text)))))
                if mode == "plain" and plain(want_text[1]) is None:
                    fine = have_text in (None, "null")
            else:
                fine = want_text == have_text
            if not fine:
                wrong.append((number, f"{column} differs", original.get(column), have_text))
    if len(rows) + len(dead) != count:
        wrong.append(("all", f"{len(rows)} rows and {len(dead)} dead letters of {count}", "", ""))
    for number, what, left, right in wrong[:10]:
        print(f"document {number} {what}:\n  {str(left)[:1500]}\n  {str(right)[:1500]}")
    print(f"seed {seed}: {count - len({entry[0] for entry in wrong})} of {count} documents are rebuilt, {letters} of them from dead letters")
    return 1 if wrong else 0


def main():
    command, seed, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if command == "make":
        with open(sys.argv[4], "w", encoding="utf-8") as file:
            for number in range(count):
                file.write(json.dumps(document(seed, number), ensure_ascii=number % 2 == 0) + "\n")
        return 0
    return check(seed, count, *sys.argv[4:7])


sys.exit(main())

#!/usr/bin/env python3
"""The audit part of scripts/bench: fills a ledger through the API, and asks it questions.

    audit_load.py fill URL KEYS RECORDS     decisions of several apps, some denied, some with outcomes
    audit_load.py ask URL KEYS LIMIT_MS     every filter and pair of filters, with present and absent
                                            values, with and without dates, oldest and newest first

KEYS is a JSON file: the API keys by their names. `ask` prints a table, and ends with 1 when the first page of
any question took longer than LIMIT_MS; of each question the faster of two readings counts, because others
use the machine too.
"""

import http.client
import itertools
import json
import random
import sys
import threading
import time
import urllib.parse

BATCH = 100
THREADS = 8


def connect(url):
    return http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=60)


def call(connection, method, path, key, body=None):
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def decision(rng, app):
    """A call as `app` makes them; one app is never denied, one asks about patients alone."""
    if app == "freight-desk":
        return {"action": "infer", "model": "assistant", "purpose": "dpv:ServiceProvision", "data": {"personal": False}}
    if app == "ward-notes":
        data = {"personal": True, "categories": ["dpv-pd:Health"], "subjects": ["SA"], "subject_count": rng.randint(1, 9)}
        return {"action": "infer", "model": "ward-notes-model", "data": data}
    subject = rng.choices(["DE", "FR", "IN", "SG", "JP", "US", "BR"], [30, 20, 20, 15, 8, 6, 1])[0]
    category = rng.choices(["dpv-pd:Contact", "dpv-pd:Health", "dpv-pd:Financial"], [80, 15, 5])[0]
    data = {"personal": True, "categories": [category], "subjects": [subject], "subject_count": rng.randint(1, 9)}
    target = rng.choices([{"model": "assistant"}, {"deployment": "qwen3-32b@dashscope-sg"}, {"model": "cheapest"}], [70, 20, 10])[0]
    return {"action": "infer", "purpose": rng.choice(["dpv:CustomerCare", "dpv:ServiceProvision"]), "data": data, **target}


def fill(url, keys, records):
    done = itertools.count()
    batches = records // BATCH
    failed = []

    def work(seed):
        rng, connection = random.Random(seed), connect(url)
        while not failed and (n := next(done)) < batches:
            # The last third of the log has an app that was not there before; every 50th batch is a rare one.
            apps = ["support-copilot"] * 6 + ["freight-desk"] * 3 + ["payments-desk"] * (3 if n > batches * 2 // 3 else 0)
            app = "ward-notes" if n % 50 == 7 and n < batches // 2 else rng.choice(apps)
            body = json.dumps({"calls": [decision(rng, app) for _ in range(BATCH)]})
            status, text = call(connection, "POST", "/v1/decisions/batch", keys[app], body)
            if status != 200:
                failed.append(text[:300])
                return
            if n % 20 == 0:
                for answer in json.loads(text)["decisions"][:5]:
                    if answer["decision"] == "allow":
                        path = f"/v1/decisions/{answer['id']}/outcome"
                        call(connection, "POST", path, keys[app], '{"status":"ok"}')
            if seed == 0 and n % 1000 < THREADS:
                print(f"audit_load: {n * BATCH} of {records} records", file=sys.stderr)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(THREADS)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        sys.exit(f"a batch failed: {failed[0]!r}")
    print(f"{records / (time.monotonic() - began):.0f} records a second")


# Of each filter: values that many records have, that few have, and that none has although the snapshot
# knows them.
VALUES = {
    "decision": ["allow", "deny"],
    "kind": ["decision", "outcome", "bundle_activated", "legal_hold"],
    "tenant": ["acme", "acme-kk"],
    "app": ["support-copilot", "freight-desk", "payments-desk", "ward-notes", "lab-notebook"],
    "key": ["support-copilot", "auditor", "officer"],
    "model": ["assistant", "cheapest", "arabic"],
    "deployment": ["qwen3-32b@dashscope-sg", "smollm2@laptop", "allam-7b@humain"],
    "tier": ["on_device", "remote"],
    "jurisdiction": ["DE", "BR", "NZ"],
    "origin": ["DE", "SA", "NZ"],
    "destination": ["SG", "DE", "NZ"],
    "instrument": ["eu-scc", "scc-acme-meridian"],
    "policy": ["base-use", "eu-gdpr-44", "ca-qc-s17"],
    "category": ["dpv-pd:Contact", "dpv-pd:Health", "dpv-pd:Biometric"],
    "purpose": ["dpv:CustomerCare", "dpv:ServiceProvision"],
}


def questions(first, last):
    """Each question as parameters: one or two filters, with each manner of dates and order."""
    span = last - first
    stamp = lambda at: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
    manners = [
        {},
        {"order": "desc"},
        {"from": stamp(first + span * 0.4), "to": stamp(first + span * 0.6)},
        {"from": stamp(last - 2), "order": "desc"},
        {"to": stamp(first - 3600)},
    ]
    names = list(VALUES)
    singles = [{}] + [{name: value} for name in names for value in VALUES[name]]
    pairs = [
        {a: x, b: y}
        for a, b in itertools.combinations(names, 2)
        for x in VALUES[a]
        for y in VALUES[b]
    ]
    for filters in singles + pairs:
        for manner in manners if len(filters) < 2 else manners[:3]:
            yield {**filters, **manner}


def instant(connection, key, query):
    """When the first record of `query` was written, in seconds."""
    status, text = call(connection, "GET", f"/v1/audit/records?{query}&limit=1", key)
    assert status == 200, text
    ts = json.loads(text)["records"][0]["entry"]["ts"]
    return time.mktime(time.strptime(ts[:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone


def ask(url, keys, limit):
    connection, key = connect(url), keys["auditor"]
    first = instant(connection, key, "kind=decision")
    last = instant(connection, key, "kind=decision&order=desc")
    took, refused, unknown = [], [], set()
    for parameters in questions(first, last):
        if unknown & set(parameters.items()):
            continue
        path = "/v1/audit/records?" + urllib.parse.urlencode(parameters)
        times = []
        for _ in range(2):
            began = time.monotonic()
            status, text = call(connection, "GET", path, key)
            times.append((time.monotonic() - began) * 1000)
        if status == 400:  # a name that this organisation has not
            unknown |= set(parameters.items()) if len(parameters) == 1 else set()
            continue
        if status != 200:
            refused.append((path, status, text[:200]))
            continue
        took.append((min(times), len(json.loads(text)["records"]), urllib.parse.unquote(path.split("?")[1])))
    took.sort()
    at = lambda share: took[min(len(took) - 1, int(len(took) * share))][0]
    print(f"    {len(took)} questions: p50 {at(0.5):.1f} ms, p99 {at(0.99):.1f} ms, slowest {took[-1][0]:.1f} ms")
    for name in [*VALUES, "from", "order"]:
        of = [row for row in took if f"{name}=" in f"&{row[2]}"]
        if of:
            slowest = max(of)
            print(f"    {name:<14} {len(of):5} questions, slowest {slowest[0]:7.1f} ms ({slowest[1]:3} records)  {slowest[2]}")
    for path, status, text in refused[:5]:
        print(f"    {status} {path}: {text!r}")
    if unknown:
        print(f"    not asked, because unknown here: {sorted(unknown)}")
    over = [row for row in took if row[0] >= limit]
    print(f"    {len(over)} of {len(took)} took {limit} ms or longer, {len(refused)} were refused")
    return 1 if over or refused else 0


def main():
    what, url, keys, number = sys.argv[1:]
    with open(keys, encoding="utf-8") as file:
        keys = json.load(file)
    if what == "fill":
        fill(url, keys, int(number))
    else:
        sys.exit(ask(url, keys, float(number)))


main()

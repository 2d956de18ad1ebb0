"""Prints the tables."""


def show(result):
    """Prints, and says whether all requests were answered and recorded."""
    options = result["options"]
    print(
        f"{result['machine']}, load average {result['load_average']:.1f}\n"
        f"{options['connections']} connections, {options['threads']} wrk thread(s), {options['workers']} workers, "
        f"{options['rounds']} rounds of {options['seconds']:g} s in turn; medians of rounds"
    )
    for group in result["groups"]:
        show_group(group)
    good = all(row["errors"] == 0 for group in result["groups"] for row in group["rows"])
    for store in result["records"]:
        whole = store["answered"] == store["stored"] == store["shipped"] and store["lost"] == 0
        whole &= store["outcomes"].get("ok", 0) >= store["seen_by_wrk"]
        good &= whole
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in sorted(store["outcomes"].items()))
        sign = "=" if whole else "!="
        print(
            f"\n{store['process']}: {store['answered']} requests answered {sign} {store['stored']} records stored "
            f"({outcomes}), {store['lost']} lost; wrk has seen {store['seen_by_wrk']} answers outside the warm-up"
        )
    if not good:
        print("\nFAILED: there were errors, or records are missing")
    return good


def show_group(group):
    events = group["events"]
    unit = "stream" if events else "request"
    print(f"\n{group['title']} (answer of {group['rows'][0]['answer_bytes']:.0f} bytes with its head)")
    head = ["proxy", f"{unit}s/s", f"CPU µs/{unit}", "x nginx (min-max)", "workers only", "workers µs + other µs"]
    head += ["µs/event"] if events else []
    head += ["p50 ms", "p99 ms", "RSS MiB", "errors"]
    rows = [head]
    for row in group["rows"]:
        ratio = row["ratio"]
        cells = [
            row["name"],
            f"{row['requests_per_second']:.0f}",
            f"{row['cpu_us']:.1f}",
            f"{ratio['median']:.2f} ({ratio['min']:.2f}-{ratio['max']:.2f})",
            f"{row['ratio_workers']['median']:.2f}",
            f"{row['cpu_workers_us']:.1f} + {row['cpu_other_us']:.1f}",
        ]
        cells += [f"{row['cpu_us'] / events:.1f}"] if events else []
        cells += [f"{row['p50_ms']:.2f}", f"{row['p99_ms']:.2f}", f"{row['rss_mib']:.0f}", str(row["errors"])]
        rows.append(cells)
    widths = [max(len(cells[i]) for cells in rows) for i in range(len(head))]
    for cells in rows:
        aligned = [cells[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:])]
        print("  ".join(aligned))

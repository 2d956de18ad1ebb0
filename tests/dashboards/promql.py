"""Names in a PromQL expression: metrics, their label matchers, and labels it groups by."""

import re

STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
GROUPING = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
SELECTOR = re.compile(r"(?<![\w.:$])([a-zA-Z_:][\w:]*)\s*(\{[^}]*\})?(?!\s*\()(?![\w:])")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*("(?:[^"\\]|\\.)*")')
WORDS = {"and", "or", "unless", "bool", "offset", "by", "without", "on", "ignoring", "group_left", "group_right"}


def grouping_labels(expression):
    """Labels of `by (…)` and its kin."""
    found = GROUPING.findall(STRING.sub('""', expression))
    return {label.strip() for _, labels in found for label in labels.split(",") if label.strip()}


def selectors(expression):
    """Pairs of a metric's name and its matchers [(label, operator, value)]."""
    strings = []

    def keep(found):
        strings.append(found.group())
        return f'"{len(strings) - 1}"'

    # Strings may hold braces and names: they are numbers while the expression is taken apart.
    text = STRING.sub(keep, expression)
    text = re.sub(r"\[[^\]]*\]", "", GROUPING.sub("", text))
    result = []
    for name, braces in SELECTOR.findall(text):
        if name not in WORDS:
            matchers = [(label, op, strings[int(number[1:-1])][1:-1]) for label, op, number in MATCHER.findall(braces)]
            result.append((name, matchers))
    return result


def legend_labels(legend):
    return set(re.findall(r"\{\{\s*(\w+)\s*\}\}", legend))


def literal_values(value):
    """The texts a matcher's value may match, if it is a plain list of them."""
    if "$" in value:
        return []
    return [text for text in value.split("|") if re.fullmatch(r"\w+", text)]

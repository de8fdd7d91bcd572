"""Small Python functions to write, with a reference and calls to check it, in MBPP's columns.

The references are written as an answer would be: without annotations, inside the built-ins and
modules that the network's sandbox allows.
"""
# ruff: noqa: B905, RUF007
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple


class Exercise(NamedTuple):
    """What to write, the reference, and argument tuples whose results become the tests."""

    text: str
    reference: Callable[..., Any]
    arguments: tuple[tuple[Any, ...], ...]


def double(number):
    return number * 2


def sum_of_squares(numbers):
    return sum(number * number for number in numbers)


def count_vowels(word):
    return sum(letter in "aeiou" for letter in word)


def is_palindrome(word):
    return word == word[::-1]


def largest(numbers):
    return max(numbers)


def second_largest(numbers):
    return sorted(set(numbers))[-2]


def reverse_words(sentence):
    return " ".join(sentence.split(" ")[::-1])


def factorial(number):
    return 1 if number < 2 else number * factorial(number - 1)


def fibonacci(position):
    first, second = 0, 1
    for _ in range(position):
        first, second = second, first + second
    return first


def is_prime(number):
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))


def digit_sum(number):
    return sum(int(digit) for digit in str(number))


def flatten(lists):
    return [item for inner in lists for item in inner]


def unique(items):
    return list(dict.fromkeys(items))


def running_total(numbers):
    totals = [0]
    for number in numbers:
        totals.append(totals[-1] + number)
    return totals[1:]


def common_items(first, second):
    return sorted(set(first) & set(second))


def capitalise_all(words):
    return [word.capitalize() for word in words]


def count_letter(word, letter):
    return word.count(letter)


def even_numbers(numbers):
    return [number for number in numbers if number % 2 == 0]


def interleave(first, second):
    return [item for pair in zip(first, second) for item in pair]


def rotate_left(items, steps):
    steps %= len(items)
    return items[steps:] + items[:steps]


def to_binary(number):
    return bin(number)[2:]


def from_binary(digits):
    return int(digits, 2)


def longest_word(words):
    return max(words, key=len)


def word_lengths(sentence):
    return [len(word) for word in sentence.split()]


def merge_counts(first, second):
    return {key: first.get(key, 0) + second.get(key, 0) for key in [*first, *second]}


def transpose(rows):
    return [list(column) for column in zip(*rows)]


def chunks(items, size):
    return [items[start : start + size] for start in range(0, len(items), size)]


def clamp(number, low, high):
    return max(low, min(high, number))


def gcd(first, second):
    while second:
        first, second = second, first % second
    return first


def triangle_number(count):
    return count * (count + 1) // 2


def alternate_case(word):
    return "".join(c.upper() if i % 2 == 0 else c.lower() for i, c in enumerate(word))


def missing_number(numbers):
    return sum(range(len(numbers) + 1)) - sum(numbers)


def swap_pairs(items):
    return [item for i in range(0, len(items), 2) for item in items[i : i + 2][::-1]]


def is_sorted(numbers):
    return all(a <= b for a, b in zip(numbers, numbers[1:]))


def differences(numbers):
    return [b - a for a, b in zip(numbers, numbers[1:])]


def leap_year(year):
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def remove_item(items, unwanted):
    return [item for item in items if item != unwanted]


def power_of_two(number):
    return number > 0 and number & (number - 1) == 0


def initials(name):
    return "".join(part[0] for part in name.split())


def dot(first, second):
    return sum(a * b for a, b in zip(first, second))


EXERCISES = (
    Exercise("double a number", double, ((3,), (0,), (-4,))),
    Exercise("add up the squares of numbers", sum_of_squares, (([1, 2, 3],), ([],), ([-2],))),
    Exercise("count the vowels of a lower-case word", count_vowels, (("apple",), ("sky",), ("",))),
    Exercise("tell whether a word reads the same backwards", is_palindrome, (("level",), ("go",))),
    Exercise("find the largest of some numbers", largest, (([1, 5, 3],), ([-2, -9],))),
    Exercise(
        "find the second largest different number", second_largest, (([1, 5, 5, 3],), ([2, 1],))
    ),
    Exercise("reverse the order of a sentence's words", reverse_words, (("a b c",), ("one",))),
    Exercise("compute the factorial of a number", factorial, ((0,), (1,), (5,))),
    Exercise("find a Fibonacci number by position, from 0", fibonacci, ((0,), (1,), (10,))),
    Exercise("tell whether a number is prime", is_prime, ((2,), (9,), (13,), (1,))),
    Exercise("add up the digits of a number", digit_sum, ((0,), (123,), (99,))),
    Exercise("join a list of lists into one list", flatten, (([[1], [2, 3]],), ([],))),
    Exercise("drop repeated items and keep the order", unique, (([1, 2, 1],), ([],))),
    Exercise("list the running totals of numbers", running_total, (([1, 2, 3],), ([],))),
    Exercise(
        "list the items two lists share, sorted", common_items, (([1, 2, 3], [3, 2]), ([1], []))
    ),
    Exercise("capitalise every word of a list", capitalise_all, ((["a", "bc"],), ([],))),
    Exercise("count a letter in a word", count_letter, (("banana", "a"), ("sky", "a"))),
    Exercise("keep the even numbers of a list", even_numbers, (([1, 2, 4],), ([1],))),
    Exercise("take items of two lists in turn", interleave, (([1, 2], [3, 4]), ([], []))),
    Exercise("rotate a list to the left", rotate_left, (([1, 2, 3], 1), ([1, 2, 3], 4))),
    Exercise("write a number in binary digits", to_binary, ((0,), (5,), (16,))),
    Exercise("read a number from binary digits", from_binary, (("0",), ("101",))),
    Exercise("find the longest of some words", longest_word, ((["a", "abc", "ab"],),)),
    Exercise("list the lengths of a sentence's words", word_lengths, (("a bc def",), ("",))),
    Exercise("add two dictionaries of counts", merge_counts, (({"a": 1}, {"a": 2, "b": 3}),)),
    Exercise("turn rows into columns", transpose, (([[1, 2], [3, 4]],), ([[1, 2, 3]],))),
    Exercise("cut a list into pieces of a size", chunks, (([1, 2, 3], 2), ([], 3))),
    Exercise("keep a number between two bounds", clamp, ((5, 0, 3), (-1, 0, 3), (2, 0, 3))),
    Exercise("find the greatest common divisor", gcd, ((12, 18), (7, 5), (4, 0))),
    Exercise("add the whole numbers from 1 up to a count", triangle_number, ((1,), (4,), (100,))),
    Exercise("write letters in upper and lower case in turn", alternate_case, (("abcd",), ("",))),
    Exercise("find the number missing from 0 to n", missing_number, (([0, 2, 3],), ([1],))),
    Exercise("swap neighbouring items of a list", swap_pairs, (([1, 2, 3, 4],), ([1, 2, 3],))),
    Exercise("tell whether numbers never decrease", is_sorted, (([1, 1, 2],), ([2, 1],))),
    Exercise("list the differences of neighbours", differences, (([1, 4, 9],), ([5],))),
    Exercise("tell whether a year is a leap year", leap_year, ((2000,), (1900,), (2024,))),
    Exercise("drop every copy of an item", remove_item, (([1, 2, 1], 1), ([], 1))),
    Exercise("tell whether a number is a power of two", power_of_two, ((8,), (6,), (0,))),
    Exercise("take the first letters of a name", initials, (("Ada Lovelace",), ("Bo",))),
    Exercise("compute the dot product of two lists", dot, (([1, 2], [3, 4]), ([], []))),
)


def mbpp_rows() -> Iterator[dict[str, Any]]:
    """One row an exercise."""
    for number, exercise in enumerate(EXERCISES, start=1):
        name = exercise.reference.__name__
        yield {
            "task_id": number,
            "text": f"Write a function to {exercise.text}.",
            "code": inspect.getsource(exercise.reference).rstrip(),
            "test_list": [
                f"assert {name}({', '.join(map(repr, a))}) == {exercise.reference(*a)!r}"
                for a in exercise.arguments
            ],
            "test_setup_code": "",
            "challenge_test_list": [],
        }


def humaneval_rows(count: int) -> Iterator[dict[str, Any]]:
    """The first exercises again, as a head to complete and a check function."""
    for number, exercise in enumerate(EXERCISES[:count]):
        head, _, body = inspect.getsource(exercise.reference).partition("\n")
        checks = "".join(
            f"    assert candidate({', '.join(map(repr, a))}) == {exercise.reference(*a)!r}\n"
            for a in exercise.arguments
        )
        yield {
            "task_id": f"HumanEval/{number}",
            "prompt": f'{head}\n    """{exercise.text.capitalize()}."""\n',
            "canonical_solution": body,
            "test": f"def check(candidate):\n{checks}",
            "entry_point": exercise.reference.__name__,
        }

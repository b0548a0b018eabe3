"""Rules that a user may write: each has something that a recorder could get wrong."""

import math

import numpy as np

from optlab.rules import average, maximum


def swapped(theta, g, a, b, *, lr):
    return theta - lr * a, b + g, a


def only_swapped(theta, g, a, b, *, lr):
    return theta - lr * (g + a), b, a


def rotated(theta, g, a, b, c, *, lr):
    return theta - lr * g * c, b, c, a


def unchanged_state(theta, g, a, *, lr):
    return theta - lr * g / (1.0 + abs(a)), a


def unchanged_parameter(theta, g, a, *, lr):
    return theta, a + lr * g


def gradient_kept(theta, g, a, *, lr):
    return theta - lr * a, g


def gradient_for_parameter(theta, g, *, lr):
    return (g,)


def parameter_kept(theta, g, a, *, lr):
    return theta - lr * a * g, theta


def output_twice(theta, g, a, b, *, lr):
    x = a + lr * g
    return theta - x, x, x


def parameter_and_state_alike(theta, g, a, *, lr):
    x = theta - lr * g * a
    return x, x


def scaled_outputs(theta, g, a, b, *, lr):
    x = a * g
    return 2.0 * x, 3.0 * x, -x


def whole_numbers(theta, g, a, *, lr):
    return 2 * theta - 3 * g / 4, -(2 * a)


def number_divided(theta, g, a, *, lr):
    return theta - lr / (1 + a * a), 2 / (3 * (abs(g) + 1))


def number_less(theta, g, a, *, lr):
    return lr - theta * g, 1 - a


def sizes(theta, g, a, *, lr):
    return theta - abs(-lr * g), abs(a * g)


def floor(theta, g, a, *, lr):
    return theta - lr * maximum(g, 0.1), maximum(a, lr)


def larger(theta, g, a, *, lr):
    return theta - lr * maximum(g, a), maximum(0.5 * a, 2 * g)


def cubed(theta, g, a, *, lr):
    return theta - lr * g**3, (a + 1.0) ** 2 / (1 + g**2)


def powers(theta, g, a, *, lr):
    return theta - lr * (abs(g) + 1) ** -1.5, (abs(a) + 1) ** 0.25 + (g * g) ** 1


def negative_under_root(theta, g, a, *, lr):
    below = -1.0 - abs(g)
    return theta - (-0.5 * below) ** 0.5, (-(2.0 * below)) ** 0.5 * a


def whole_number_under_root(theta, g, a, *, lr):
    below = -1.0 - abs(g)
    return theta - (-2 * below) ** 0.5, (below * -1) ** 0.5 * a


def settings_sign_under_root(theta, g, a, *, lr):
    below = -1.0 - abs(g)
    return theta - (-lr * below) ** 0.5, a


def nothing_under_root(theta, g, a, *, lr):
    below = -1.0 - abs(g)
    return theta - ((lr - lr) * below) ** 0.5, a


def used_before_and_after(theta, g, a, *, lr):
    b = a + g
    c = a * b
    return theta - lr * c * a, c + a / (1 + b * b)


def one_thing_again(theta, g, a, *, lr):
    x = lr * g
    return theta - x - x, x + x * a


def unused(theta, g, a, *, lr):
    size = abs(g)
    root = (size + 1) ** 0.5 / (1 + a * a)  # noqa: F841
    return theta - lr * g, 0.5 * a + g


def plus_sign(theta, g, a, *, lr):
    return +theta - lr * g, +a


def branching(theta, g, a, *, lr):
    if lr > 0.1:
        return theta - lr * g, a + g
    return theta - lr * a, abs(g)


def counting(theta, g, a, *, lr):
    for _ in range(int(1 + 10 * lr)):
        a = 0.5 * a + g
    return theta - lr * a, a


def library_numbers(theta, g, a, *, lr):
    rate = math.sqrt(lr) * max(lr, 0.05)
    return theta - rate * g, math.exp(-lr) * a + g


def larger_number(theta, g, a, *, lr):
    return theta - maximum(lr, 0.15) * g, a


def number_larger(theta, g, a, *, lr):
    return theta - maximum(0.15, lr) * g, a


def array_library_numbers(theta, g, a, *, lr):
    return theta - np.sqrt(lr) * g, a


def array_library_constants(theta, g, a, *, lr):
    return theta - lr * g, np.float64(0.5) * a + g * np.float64(2.0) - np.float32(1.0)


def with_a_helper(theta, g, a, *, lr):
    a = average(a, g * g, 1 - lr)
    return theta - lr * g / (a**0.5 + 1e-8), a


NASTY = [
    *(swapped, only_swapped, rotated, unchanged_state, unchanged_parameter, gradient_kept),
    *(gradient_for_parameter, parameter_kept, output_twice, parameter_and_state_alike),
    *(scaled_outputs, whole_numbers, number_divided, number_less, sizes, floor, larger, cubed),
    *(powers, negative_under_root, whole_number_under_root, settings_sign_under_root),
    *(nothing_under_root, used_before_and_after, one_thing_again, unused, plus_sign, branching),
    *(counting, library_numbers, larger_number, number_larger, array_library_numbers),
    *(array_library_constants, with_a_helper),
]


def branches_on_an_entry(theta, g, a, *, lr):
    return (theta - lr * g, a) if g > 0 else (theta, a)


def asks_whether_equal(theta, g, a, *, lr):
    return (theta, a) if g == 0 else (theta - lr * g, a)


def asks_whether_different(theta, g, a, *, lr):
    return (theta, a) if a != 0 else (theta - lr * g, a)


def asks_whether_true(theta, g, a, *, lr):
    return theta - lr * (g or a), a


def gives_a_number(theta, g, a, *, lr):
    return theta - lr * g, 0.0


def gives_a_number_for_the_parameter(theta, g, a, *, lr):
    return lr, a


def gives_nothing(theta, g, a, *, lr):
    return theta - lr * g, None


def power_of_a_tensor(theta, g, a, *, lr):
    return theta - lr * abs(g) ** a, a


def tensor_in_the_exponent(theta, g, a, *, lr):
    return theta - lr * 2**g, a


def root_of_the_library(theta, g, a, *, lr):
    return theta - lr * math.sqrt(g), a


def array_root_of_the_library(theta, g, a, *, lr):
    return theta - lr * np.sqrt(g), a


def adds_a_text(theta, g, a, *, lr):
    return theta - lr * (g + "1"), a


def adds_none(theta, g, a, *, lr):
    return theta + None, a


REFUSED = [
    *(branches_on_an_entry, asks_whether_equal, asks_whether_different, asks_whether_true),
    *(gives_a_number, gives_a_number_for_the_parameter, gives_nothing, power_of_a_tensor),
    *(tensor_in_the_exponent, root_of_the_library, array_root_of_the_library),
    *(adds_a_text, adds_none),
]

"""What an evaluation of predictions found, in sentences that say what is what: for the terminal and the page alike.

The common words are often wrong: precision is not specificity, a small false-positive rate is not a small number of
false alarms, and what is 0/0 is undefined. docs/metrics.md says why.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from phalanx.metrics.intervals import rounded

Number = Mapping[str, Any]
UNDEFINED = "undefined (0/0)"
AS_GIVEN = "as given"


def needle_sentences(document: Mapping[str, Any]) -> list[str]:
    """Of a report of needles (`NeedlesReport.to_dict`): the confusion matrix and what follows from it."""
    called = document["called"]
    needles, straws = (
        called["true_positives"] + called["false_negatives"],
        called["false_positives"] + called["true_negatives"],
    )
    alerts = called["true_positives"] + called["false_positives"]
    found = (
        f"Of {amount(needles)} needles {amount(called['true_positives'])} were found and "
        f"{amount(called['false_negatives'])} missed: recall (sensitivity) {share(called['recall'])}."
    )
    alarms = (
        f"Of {amount(straws)} straws {amount(called['false_positives'])} were called needles: false-positive rate "
        f"{share(called['false_positive_rate'])}, specificity {share(called['specificity'])}."
    )
    said = [found, alarms]
    if alerts:
        said.append(
            f"Of {amount(alerts)} alerts {amount(called['true_positives'])} are needles: precision (positive "
            f"predictive value) {share(called['precision'])}."
        )
    else:
        said.append(f"Nothing was called a needle: precision is {UNDEFINED}, not 0.")
    said.append(f"F1, which is 2 TP / (2 TP + FP + FN), is {share(called['f1'])}.")
    said.append(_accuracy(called, straws / (needles + straws)))
    said += _where_it_runs(document)
    if document["chosen_by"] != AS_GIVEN:
        said.append("The threshold was chosen on these very examples, which flatters it: confirm it on others.")
    return said


def _accuracy(called: Number, all_straw: float) -> str:
    return (
        f"Accuracy is {share(called['accuracy'])}, and that of calling everything straw {decimal(all_straw)}: "
        "it says next to nothing of needles."
    )


def _where_it_runs(document: Mapping[str, Any]) -> list[str]:
    said = []
    here, there = document["rate_here"], document["base_rate"]
    if not math.isclose(here, there, rel_tol=1e-9):
        said.append(
            f"Where one in {one_in(there)} is a needle, the same detector has a precision of "
            f"{share(document['precision_there'])}; here one in {one_in(here)} is."
        )
    if document["volume"] is not None:
        alerts, falsely = document["alerts_per_day"], document["false_alarms_per_day"]
        said.append(
            f"Of {amount(document['volume'])} examples a day it calls {between(alerts)} needles, {between(falsely)} "
            "of them falsely."
        )
    return said


def ranking_sentences(document: Mapping[str, Any]) -> list[str]:
    """How well the scores rank, whatever the threshold; precision and recall before ROC, and why."""
    by_precision = (
        f"Average precision {share(document['average_precision'])}; calling needles at random has "
        f"{decimal(document['rate_here'])}."
    )
    by_roc = (
        f"ROC area {share(document['roc_auc'])}: the chance that a needle scores higher than a straw. It does not "
        "change with how rare needles are, so it looks good where most alerts are false: look at precision first."
    )
    rates = [
        f"Where one straw in {one_in(each['false_positive_rate'])} is called a needle, recall is {share(each)}."
        for each in document["recall_at"]
    ]
    return [by_precision, by_roc, *rates, *_as_chances(document["chances"])]


def _as_chances(chances: Number | None) -> list[str]:
    if chances is None:
        return []
    side = "better" if chances["brier"] < chances["brier_of_rate"] else "no better"
    errors = (
        f"Read as probabilities, the scores are {decimal(chances['expected_error'])} off on average (expected "
        f"calibration error); their Brier score, {decimal(chances['brier'])}, is {side} than that of giving every "
        f"example the share of needles, {decimal(chances['brier_of_rate'])}."
    )
    if chances["impossible"]:
        return [errors, f"{amount(chances['impossible'])} were what they had no chance to be: log loss is infinite."]
    return [errors, f"Log loss is {decimal(chances['log_loss'])} nats."]


def number_sentences(document: Mapping[str, Any]) -> list[str]:
    """How far forecasts are off (`NumbersReport.to_dict`), beside forecasting the mean for all."""
    numbers, truths = document["numbers"], document["truths"]
    mae, rmse, bias, r2 = (numbers[name] for name in ("mae", "rmse", "bias", "r2"))
    off = (
        f"Of {amount(document['examples'])} forecasts the mean absolute error is {within(mae)}; the root of the mean "
        f"square, which large errors weigh on more, is {within(rmse)}."
    )
    side = "high" if bias["value"] > 0 else "low"
    if bias["low"] <= 0 <= bias["high"]:
        leaning = f"Whether they are too high or too low on the whole cannot be told: the mean error is {within(bias)}."
    else:
        leaning = f"They are too {side} on the whole: the mean error is {within(bias)}."
    mean = (
        f"Forecasting the mean of all ({truths['mean']:.6g}) every time would have a root mean square of "
        f"{truths['deviation']:.6g}: "
    )
    if r2["value"] is None:
        mean += f"as all are the same, R2 is {UNDEFINED}."
    else:
        mean += f"R2, the share of the squares that the forecasts save, is {share(r2)}."
        mean += " Forecasting the mean would be better." if r2["value"] < 0 else ""
    line = (
        f"How near to a line truths and forecasts lie: Pearson {share(numbers['pearson'])}; how alike their orders "
        f"are: Spearman {share(numbers['spearman'])}."
    )
    return [off, leaning, mean, line]


def within(interval: Number) -> str:
    """An amount and its interval, with as many digits as the interval lets count."""
    if interval["value"] is None:
        return UNDEFINED
    if interval["low"] is None or interval["high"] is None:
        return decimal(interval["value"])
    value, low, high = rounded(interval["value"], interval["low"], interval["high"])
    return f"{value} ({low} to {high})"


def share(interval: Number) -> str:
    """A number and its interval, .103 (.085 to .124)."""
    if interval["value"] is None:
        return UNDEFINED
    value = decimal(interval["value"])
    if interval["low"] is None or interval["high"] is None:
        return value
    return f"{value} ({decimal(interval['low'])} to {decimal(interval['high'])})"


def between(interval: Number) -> str:
    """An amount and its interval, 15.9 (4.1 to 55.4)."""
    return f"{amount(interval['value'])} ({amount(interval['low'])} to {amount(interval['high'])})"


def decimal(value: float | None) -> str:
    """Three decimals; of what is nearer to 0, or a share nearer to 1, than a hundredth three digits that count."""
    if value is None or math.isnan(value):
        return UNDEFINED
    if value in (0, 1):
        return f"{value:g}"
    small = min(abs(value), abs(1 - value)) if 0 < value < 1 else abs(value)
    places = 3 if small >= 0.01 else min(2 - math.floor(math.log10(small)), 12)
    return f"{value:.{places}f}"


def amount(number: float | None) -> str:
    """12, 138,489 or 7.94."""
    if number is None:
        return UNDEFINED
    if float(number).is_integer():
        return f"{number:,.0f}"
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.3g}"


def one_in(rate: float) -> str:
    """2,199 for a rate of 1/2199."""
    return amount(round(1 / rate) if rate < 0.1 else 1 / rate)

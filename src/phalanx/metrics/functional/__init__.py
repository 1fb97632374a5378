"""The metrics under scikit-learn's names, with its arguments and its ways at the edges: changing an import is enough.

`phalanx.metrics` has them all. Where a number is undefined they warn and answer as scikit-learn does; the states of
`phalanx.metrics` answer NaN instead.
"""

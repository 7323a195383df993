"""Rule 5 checked from outside: every pair is measured at every command, without the guard's bounds."""

import numpy as np

TOLERANCE = 1e-3  # m that a command may be inside a margin


def clearance(workspace, positions, at_once=128):
    """All clearances [K, N] at positions [K, D], m: exact, however large."""
    rows = np.asarray(positions)
    return np.concatenate([workspace.clearance(rows[k : k + at_once]) for k in range(0, len(rows), at_once)])


def by_reason(workspace, clearances):
    """Least clearance [K] of each reason, from clearances [K, N]."""
    reasons = np.array([limit.reason for limit in workspace.limits])
    return {reason: clearances[:, reasons == reason].min(axis=1) for reason in dict.fromkeys(reasons)}


def check_clearance(sent, workspace, tolerance=TOLERANCE):
    """No command of a robot whose torso stands still is inside a margin; returns the least clearance, m."""
    positions = [command.motion.position for command in sent if command.motion is not None]
    if not positions:
        return np.inf
    clearances = clearance(workspace, positions)
    least = clearances.min()
    row, limit = np.unravel_index(clearances.argmin(), clearances.shape)
    assert least > -tolerance, (row, workspace.limits[limit], least)
    return least

"""What outlives the controller: rollouts, wishes, the audit log, tokens, examples. START HERE: `state`."""

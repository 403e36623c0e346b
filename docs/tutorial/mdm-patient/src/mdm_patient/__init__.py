"""Commits the masks that the model is most confident of."""

from mdm.protocols import BaseSampler, Commit, NoOptions, top_k


class PatientOptions(NoOptions):
    """What a user may set with -o NAME=VALUE: fields with a default and a description."""


class Patient(BaseSampler):
    """Commits the k masks of the block that the model is most confident of, k from the schedule."""

    Options = PatientOptions

    def key(self, scores, draws):
        """What ranks the masks, float [B, K], the largest first. Each row is a prompt, each column a position.

        ``scores.positions`` are the positions, ``scores.entropy`` their entropies in nats. Random numbers that depend
        on seed, row, step and position alone are ``draws.uniform("position", scores.positions)``.
        """
        return scores.log_odds

    def decide(self, state, scores, memory, draws):
        return Commit(top_k(self.key(scores, draws), scores.valid, state.budget), scores.token)

"""How sure ESMFold is of the structure that it predicts for a sequence."""

from __future__ import annotations

from typing import Any

import torch
from mdm.errors import MdmError
from mdm.models import load_network, stock_config
from mdm.models.checkpoints import locate, read_config
from mdm.models.weight_files import check_weights

from mdm_protein.kept import Values, checkpoint

ARCHITECTURE = "EsmForProteinFolding"


class Folder:
    """ESMFold by transformers' own ``EsmForProteinFolding``, in float32.

    Where its configuration says ``fp16_esm``, as the published one does, the language model in it runs in half.

    Raises:
        MdmError: there is no such checkpoint, or it is of another kind.
    """

    def __init__(self, name: str, device: str) -> None:
        from transformers import EsmForProteinFolding

        folder = locate(name, offline=False)
        config = read_config(folder)
        if ARCHITECTURE not in (config.get("architectures") or ()):
            found = ", ".join(map(str, config.get("architectures") or ())) or config.get("model_type")
            raise MdmError(f"{name} is {found}: structures are predicted by an {ARCHITECTURE}, facebook/esmfold_v1")
        check_weights(folder, config)
        source = str(folder)
        self.name = name
        self.question: dict[str, Any] = {"fold": checkpoint(name)}
        self._network: Any = load_network(
            EsmForProteinFolding, source, stock_config(source), device=device, dtype="float32", bidirectional=False,
            surplus=r"position_ids$|contact_head|^esm\.lm_head",
        )  # fmt: skip

    def confidence(self, sequence: str) -> Values:
        """``plddt``, 0 to 100, and ``ptm``, 0 to 1, of the structure predicted for one sequence.

        pLDDT is the mean over all atoms of the predicted local distance difference test, as ESMFold reports it (Lin et
        al. 2023, doi:10.1126/science.ade2574; the test itself: Mariani et al. 2013, doi:10.1093/bioinformatics/btt473);
        above 70 the fold of the backbone is taken to be right. pTM is the predicted TM-score to the true structure.

        Raises:
            MdmError: the device has no memory for it.
        """
        try:
            with torch.inference_mode():
                out = self._network.infer([sequence])
        except torch.OutOfMemoryError:
            raise MdmError(
                f"no memory to fold {len(sequence)} residues: leave longer ones out, --fold-up-to {len(sequence) - 1}"
            ) from None
        atoms = out.atom37_atom_exists
        plddt, ptm = float((out.plddt * atoms).sum() / atoms.sum()), float(out.ptm)
        if not 0 <= plddt <= 1:
            raise MdmError(f"{self.name} gives a pLDDT of {plddt}: its weights are damaged")
        return {"plddt": 100 * plddt, "ptm": ptm}

"""equiscale: scaling laws and symmetry of neural interatomic potentials.

Six values flow down one path, and every chapter is one step on it:

    Structure -> AtomGraph -> Prediction -> RunRecord -> Fit -> Report

    config      strict frozen configurations          errors   what a user is told
    files       whole or not there                    claim    who works on it, where machines share a folder
    tables      anybody's runs as plain columns: CSV, JSON, Parquet, exports of W&B and MLflow
    data        structures, stores, sources, the built-in set, labels, splits, reference energies
    graph       AtomGraph, Prediction, neighbour lists, batching by atoms
    so3         harmonics, Wigner D, edge frames      radial   bases and envelopes
    symmetry    groups and their averages, twirling, loss decomposition, loss landscape: of any function it is given
    models      the architectures, one file each      predict  where forces come from
    evaluate    errors of a trained rung              calculator  the rung in ASE     dynamics  energy conserved?
    measure     how symmetric a trained model is, ours or any ASE calculator
    run         RunSpec, RunRecord, the table         train    loss, optimiser, FLOPs, checkpoint, loop
    ladder      Ladder, Study                         launch   where runs are trained
    laws        forms, fit, uncertainty, frontier, allocation (numpy and scipy only)
    report      figures and one self-contained page
    results     a study's folder                      facts    its table and analyses     progress  how far it is
    probe       memory and hours of a study's rungs, from a few steps
    study       a study run, its largest predicted    dry_run  its cost beforehand        tune  rate, batch, depth
    fine_tune   a rung trained on
    cli         the command line
"""

__version__ = "0.1.0"

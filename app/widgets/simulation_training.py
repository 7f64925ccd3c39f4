"""The Train view of the What-if page: what predictions stand on, and training on own rows."""

from __future__ import annotations

import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from app import formats
from app.session import SessionContext
from app.widgets.dialogs import confirm_by_name
from app.widgets.jobs import job_steps
from app.widgets.layout import Kpi, empty_state, errors_shown, escape, kpi_row
from app.widgets.tables import table_with_downloads
from core import jobs
from core.kernel.actor import Actor
from core.simulation import own_rows, trainings
from core.simulation.batch_rows import OPTIONAL, REQUIRED
from core.simulation.own_rows import OwnRows
from core.simulation.training import HEADS
from core.simulation.training_requests import OwnError, Standing, TrainingResult, TrainingView

_CHOSEN, _READ = "training", "training-read"
_HEAD_NAMES = {"ttft_ms": "TTFT", "tpot_ms": "TPOT"}


def train_view(context: SessionContext) -> None:
    """Train on measurements of one's own, see how good it is, use it or go back."""
    actor, project_id = context.actor, context.project_id
    with errors_shown():
        _standing(trainings.standing(actor, project_id))
    left, right = st.columns([1, 2], gap="medium")
    with left, st.container(border=True, key="what-if-inputs"), errors_shown():
        _upload(context)
    with right, errors_shown():
        found = trainings.list_trainings(actor, project_id)
        if not found:
            empty_state(
                "Nothing was trained here yet",
                "Measure your own deployments, upload what you measured, then press Train.",
                icon="model_training",
                key="trainings",
            )
            return
        _training(actor, _chosen(found))


def _standing(standing: Standing) -> None:
    basis, training = standing.basis, standing.training
    kpi_row(
        [
            Kpi(
                "Predicted with",
                "as shipped" if training is None else "yours",
                "Everything that predicts uses it: this page, the deploy wizard, searches, "
                "replays and the command line.",
                None if training is None else training.name,
            ),
            Kpi("Version", basis.version, "Of the method.", f"data {basis.data_hash[:8]}"),
            Kpi("Newest row of", basis.data_date, "The day of the newest measurement."),
            Kpi("Measured rows", f"{basis.rows:,} rows", note=f"{standing.own_rows:,} of your own"),
        ],
        key="training-standing",
    )


def _upload(context: SessionContext) -> None:
    st.markdown("**Your own measurements**")
    st.caption(
        "A CSV file in the batch format with `ttft_ms`, `tpot_ms` or both: means in milliseconds "
        "over a run at steady concurrency. Several concurrencies of several configurations teach "
        f"most. Up to {own_rows.MOST_ROWS:,} rows."
    )
    if not context.actor.may("simulation:train"):
        st.caption("An admin can train: it changes the predictions of every project.")
        return
    columns = ",".join((*REQUIRED, *OPTIONAL, *HEADS))
    st.download_button(
        "Columns as CSV",
        f"{columns}\n",
        file_name="measurements.csv",
        mime="text/csv",
        icon=":material/download:",
        type="tertiary",
        on_click="ignore",
        key="training-columns",
    )
    file = st.file_uploader(
        "File",
        type=["csv"],
        max_upload_size=own_rows.MOST_BYTES // 1_000_000,
        key="training-file",
        label_visibility="collapsed",
    )
    read = None
    if file is not None:
        with errors_shown():
            read = _read(context.actor, file)
    is_ready = read is not None and _shown_rows(read)
    clicked = st.button(
        "Train", type="primary", key="training-go", width="stretch", disabled=not is_ready
    )
    st.caption("Takes one to a few minutes at low priority; the pages stay usable.")
    if clicked and file is not None:
        with errors_shown():
            made = trainings.start(
                context.actor, context.project_id, file.name, file.getvalue(), leave_out_bad=True
            )
            st.query_params[_CHOSEN] = made.id
            st.rerun()


def _read(actor: Actor, file: UploadedFile) -> OwnRows:
    """What the file holds, read once and not at every click."""
    known, read = st.session_state.get(_READ, ("", None))
    if read is None or known != file.file_id:
        read = trainings.read_rows(actor, file.name, file.getvalue())
        st.session_state[_READ] = (file.file_id, read)
    found: OwnRows = read
    return found


def _shown_rows(read: OwnRows) -> bool:
    """Show what can be used of a file; whether one may train on it."""
    usable = len(read.table)
    if usable:
        st.success(f"{_rows(usable)} of {_configurations(read.configurations)} can be used.")
    if not read.bad:
        return True
    st.warning(f"{_rows(len(read.bad))} cannot be used:")
    table_with_downloads(
        [{"Line": each.line, "What is wrong": each.what} for each in read.bad],
        name="training-bad-rows",
        height=min(320, 40 + 35 * len(read.bad)),
    )
    if not usable:
        return False
    return st.checkbox(f"Leave out {_rows(len(read.bad))}", key="training-leave-out")


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def _configurations(count: int) -> str:
    return f"{count:,} configuration{'' if count == 1 else 's'}"


def _chosen(found: list[TrainingView]) -> TrainingView:
    ids = [each.id for each in found]
    titles = {each.id: _title(each) for each in found}
    asked = st.query_params.get(_CHOSEN)
    chosen = st.selectbox(
        "Trainings",
        ids,
        index=ids.index(asked) if asked in ids else 0,
        format_func=lambda each: titles[each],
        label_visibility="collapsed",
    )
    return found[ids.index(chosen)]


def _title(training: TrainingView) -> str:
    in_use = "in use · " if training.is_in_use else ""
    made = f"{formats.ago(training.created_at)}, {training.created_by_name}"
    return f"{in_use}{training.name} · {_rows(training.rows)} · {made}"


def _training(actor: Actor, training: TrainingView) -> None:
    if training.result is None:
        _job(actor, training)
    else:
        _result(training, training.result)
    _actions(actor, training)


def _job(actor: Actor, training: TrainingView) -> None:
    if not actor.may("job:read", training.project_id):
        st.info("It has no model yet; its job is in a project that you are no member of.")
        return
    # A retry is another job.
    found = jobs.list_jobs(actor, training.project_id, subject=f"training:{training.id}", limit=1)
    if found:
        job_steps(actor, found[0].id)


def _result(training: TrainingView, result: TrainingResult) -> None:
    kpi_row(
        [
            *(_error_kpi(head, error) for head, error in result.errors.items()),
            Kpi(
                "Your rows",
                _rows(training.rows),
                note=f"of {_configurations(training.configurations)}",
            ),
        ],
        key="training-result",
    )
    _verdict(training, result)
    table_with_downloads(
        [
            {"Trained on": "your own" if source == "own" else source, "Rows": count}
            for source, count in result.rows.items()
        ],
        name="training-rows",
    )
    st.caption(
        f"Version {escape(result.version)}, newest row of {result.data_date}, "
        f"data {result.data_hash[:16]}…"
    )


def _error_kpi(head: str, error: OwnError) -> Kpi:
    return Kpi(
        f"{_HEAD_NAMES[head]} error, held out",
        f"{error.held_out_mape:,.1f}%",
        f"Mean absolute error on {error.rows:,} of your rows, each configuration predicted "
        "without any row of it. Below it: the shipped model on the same rows.",
        f"shipped {error.shipped_mape:,.1f}%",
    )


def _verdict(training: TrainingView, result: TrainingResult) -> None:
    if training.configurations == 1:
        st.info(
            "All rows are of one configuration. Held out, none of yours is left to learn from: "
            "the figures above say nothing of what it gained. Measure other configurations too."
        )
        return
    worse = [
        _HEAD_NAMES[head]
        for head, error in result.errors.items()
        if error.held_out_mape > error.shipped_mape
    ]
    if worse:
        st.warning(f"On configurations it has not seen it is worse in {' and '.join(worse)}.")
    else:
        st.success("On configurations it has not seen it is better than the shipped model.")


def _actions(actor: Actor, training: TrainingView) -> None:
    if not actor.may("simulation:train"):
        return
    if not training.is_current:
        st.warning("Another version of Bud made this model. Upload the rows and train again.")
    with st.container(horizontal=True):
        if training.is_in_use:
            if st.button("Back to the shipped model", key="training-back", icon=":material/undo:"):
                trainings.use_shipped(actor)
                st.rerun()
            return
        is_usable = training.result is not None and training.is_current
        if is_usable and st.button("Use it", type="primary", key="training-use"):
            trainings.use(actor, training.id)
            st.rerun()
        if st.button("Delete", key="training-delete", icon=":material/delete:"):
            confirm_by_name(
                training.name,
                "Its rows and its model will be lost.",
                lambda: trainings.delete(actor, training.id),
            )

"""Tables that can be downloaded."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from app.formats import NONE


def table_with_downloads(
    rows: Sequence[Mapping[str, Any]] | pd.DataFrame,
    *,
    name: str,
    columns: Mapping[str, Any] | None = None,
    selectable: bool = False,
    height: int | None = None,
) -> int | None:
    """A table with its downloads as CSV and Parquet.

    Args:
        rows: The rows, in the order shown.
        name: The file name of the downloads, and what tells tables of one page apart.
        columns: Streamlit's `column_config`; a column set to None is only in the downloads.
        selectable: Whether a row is chosen by a click on any of its cells.
        height: The height in pixels; None fits the rows.

    Returns:
        The position of the chosen row, or None.
    """
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    chosen: Any = st.dataframe(
        frame,
        hide_index=True,
        placeholder=NONE,
        column_config=dict(columns) if columns else None,
        key=f"table-{name}",
        height=height if height is not None else "auto",
        on_select="rerun" if selectable else "ignore",
        selection_mode="single-cell",
    )
    downloads(lambda: frame, name=name, rows=f"{len(frame):,} row{'' if len(frame) == 1 else 's'}")
    if not selectable:
        return None
    cells = chosen.selection.cells
    return int(cells[0][0]) if cells else None


def downloads(whole: Callable[[], pd.DataFrame], *, name: str, rows: str) -> None:
    """Buttons that give a table as CSV and Parquet.

    Args:
        whole: Makes the table; called when a button is clicked.
        name: The file name.
        rows: What stands beside the buttons: how many rows there are.
    """
    with st.container(horizontal=True, horizontal_alignment="right", gap="small"):
        st.caption(rows, width="stretch")
        st.download_button(
            "CSV",
            data=lambda: whole().to_csv(index=False).encode(),
            file_name=f"{name}.csv",
            mime="text/csv",
            key=f"csv-{name}",
            type="tertiary",
            icon=":material/download:",
            on_click="ignore",
        )
        st.download_button(
            "Parquet",
            data=lambda: _parquet(whole()),
            file_name=f"{name}.parquet",
            mime="application/vnd.apache.parquet",
            key=f"parquet-{name}",
            type="tertiary",
            icon=":material/download:",
            on_click="ignore",
        )


def _parquet(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()

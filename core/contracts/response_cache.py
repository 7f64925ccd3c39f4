"""Where the gateway of one host keeps answers to give them again: one SQLite file.

`<data folder>/cache/answers.db`, which the host's workers share. The dashboard reads its table
`used`: how many answers each project has there, and how many bytes they take.
"""

from __future__ import annotations

FOLDER_NAME = "cache"
FILE_NAME = "answers.db"

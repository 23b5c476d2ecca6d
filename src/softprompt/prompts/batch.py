"""The name that `softprompt.batch` had before: scripts written against it still run."""

from softprompt.batch import PromptBatch as PromptBatch
from softprompt.batch import Rows as Rows

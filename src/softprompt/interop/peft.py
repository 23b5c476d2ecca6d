"""See `softprompt.library.formats.peft`."""

from softprompt.library.formats.peft import read_peft as read_peft

"""Parts that work with other libraries; each needs the extra that is named like it."""

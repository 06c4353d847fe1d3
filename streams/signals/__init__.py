"""Item signals: item-events enter, decayed popularity per item leaves."""

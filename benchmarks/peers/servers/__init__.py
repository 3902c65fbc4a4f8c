"""Other people's servers with the same model behind them, each in an environment of its own."""

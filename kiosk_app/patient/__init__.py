"""What patients touch: the journey, its pages, its words, and the running kiosk behind them."""

"""The performance history of FlashAttention-4, kept with Airspeed Velocity."""

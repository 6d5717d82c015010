"""Decides who is limited, keeps the evidence, answers from Redis."""

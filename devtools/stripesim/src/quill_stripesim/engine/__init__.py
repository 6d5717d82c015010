"""What happens to several resources at once: usage becomes lines, lines an invoice, an invoice a payment."""

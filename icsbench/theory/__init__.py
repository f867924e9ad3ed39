"""What theory predicts, in numpy: closed forms and integrals that labs put beside what they measure."""

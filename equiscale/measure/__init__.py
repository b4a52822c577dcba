"""How symmetric a trained model is: any potential of ours and any ASE calculator, on any structures."""

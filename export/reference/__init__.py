"""PEFT in float32, driven as the device's engines are: what every exported graph is compared with."""

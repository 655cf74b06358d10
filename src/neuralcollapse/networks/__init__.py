"""Networks for small images, by name, and the last layers that can replace their own."""

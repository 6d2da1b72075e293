"""What the cloud says of machines that run there: notices, quotas. Knows no Ray and no run."""

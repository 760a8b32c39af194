module e2eclient

go 1.25.0

{
  prefixStats: "café"
}

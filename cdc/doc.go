package cdc
